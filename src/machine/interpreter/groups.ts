/** Groups of semantics: each becomes one Wasm module of cold handlers at its first use. */
import type { Module } from "../wasm/module.ts";
import { aluSemantics, compareExchangePair } from "../isa/semantics/alu.ts";
import { bitSemantics } from "../isa/semantics/bits.ts";
import { branchSemantics } from "../isa/semantics/branch.ts";
import { dataSemantics } from "../isa/semantics/data.ts";
import type { Semantics } from "../isa/semantics/meaning.ts";
import { multiplySemantics } from "../isa/semantics/multiply.ts";
import { shiftSemantics } from "../isa/semantics/shift.ts";
import { specialSemantics } from "../isa/semantics/special.ts";
import { systemGroup } from "../isa/semantics/system_group.ts";
import { svmGroup } from "../svm/index.ts";
import { vmxGroup } from "../vmx/index.ts";
import { x87Group } from "../isa/semantics/x87.ts";
import { mmxGroup } from "../isa/semantics/mmx.ts";
import { fxsaveGroup } from "../isa/semantics/fxsave.ts";
import { sseGroup } from "../isa/semantics/sse.ts";
import { stringSemantics } from "../isa/semantics/string.ts";

export interface Group {
  readonly semantics: Readonly<Record<string, Semantics>>;
  /** Functions of the group's own, built before its handlers. */
  readonly functions?: (m: Module) => void;
}

export const integerGroup: Group = {
  semantics: {
    ...aluSemantics,
    ...compareExchangePair,
    ...bitSemantics,
    ...branchSemantics,
    ...dataSemantics,
    ...multiplySemantics,
    ...shiftSemantics,
    ...stringSemantics,
  },
};

/** All groups, by name. */
export const groups: Record<string, Group> = {
  integer: integerGroup,
  system: systemGroup,
  vmx: vmxGroup,
  svm: svmGroup,
  x87: x87Group,
  mmx: mmxGroup,
  fxsave: fxsaveGroup,
  sse: sseGroup,
  special: { semantics: specialSemantics },
};

/** Name of the group that holds a key; undefined if nothing gives it a meaning yet. */
export function groupOf(key: string): string | undefined {
  for (const name in groups) if (key in groups[name].semantics) return name;
}
