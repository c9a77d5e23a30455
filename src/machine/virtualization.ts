/** The virtualization extensions of the two vendors, as parts of module S; one of them is linked in. */
import type { ProcessorParts, SystemFunctions } from "./linkage.ts";
import { CPU, V } from "./state.ts";
import { guestBoundary } from "./svm/guests.ts";
import { SVMC } from "./svm/layout.ts";
import { VMXC } from "./vmx/layout.ts";
import { buildNested } from "./mmu/nested.ts";
import { buildNestedPaging, buildSvmFunctions, buildSvmHooks } from "./svm/index.ts";
import { buildVmxFunctions, buildVmxHooks } from "./vmx/index.ts";
import { type CellField, fieldsNamed } from "./wasm/cells.ts";
import type { Module } from "./wasm/module.ts";
import type { CpuModel } from "./vendors.ts";

/** Guests whose host is code of this machine. */
export interface HostedGuests {
  /** At an instruction boundary: makes what is due and is not the guest's. True: the state has changed. */
  boundary(cpu: ProcessorParts): boolean;
  /** Makes the exit that is due; the host goes on. */
  leave(system: SystemFunctions): void;
}

export interface Virtualization {
  /** The group of its instructions. */
  readonly group: "vmx" | "svm";
  /**
   * Where a guest runs whose host is code of this machine: what is in force of its control structure,
   * and what is under way.
   */
  readonly cells: readonly CellField[];
  /** Bits of a PML4 entry that must be 0 besides the address: PS, and bit 8 on AMD's processors. */
  readonly pml4Reserved: number;
  /** Undefined: exits of such guests are told to who runs the processor. */
  readonly guests?: HostedGuests;
  /** An exit between iterations of INS or OUTS leaves RF set, for which the processor sets it. */
  readonly keepsResumeFlag: boolean;
  /** INIT waits: in VMX operation (SDM 3 25.2), in an SVM guest that does not intercept it for the host. */
  holdsInit(cells: Int32Array): boolean;
  /** The registers came from outside: finds what belongs to them. */
  restored?(system: SystemFunctions): void;
  /** `nested(physical, access, linear)`: guest-physical to machine-physical. */
  nested(m: Module): void;
  /** What event delivery and instructions call; before those are built. */
  hooks(m: Module): void;
  /** The rest, which calls those. */
  functions(m: Module): void;
}

export const virtualization: Readonly<Record<CpuModel, Virtualization>> = {
  intel: {
    group: "vmx",
    cells: [
      ...fieldsNamed(V, ["nonRoot", "eptp", "iret"]),
      ...fieldsNamed(VMXC, ["trapDue", "tprDue", "timer"]),
    ],
    pml4Reserved: 0x80,
    keepsResumeFlag: false,
    holdsInit: (cells) => cells[CPU.vmxMode >> 2] !== 0,
    restored: (system) => void system.vmxCurrent(),
    nested(m) {
      m.declareLater("eptWalk", ["i64", "i32", "i64"], ["i64"]);
      m.declareLater("eptMisconfigured", ["i64", "i32", "i32"], ["i32"]);
      buildNested(m);
    },
    hooks: buildVmxHooks,
    functions: buildVmxFunctions,
  },
  amd: {
    group: "svm",
    cells: [
      ...fieldsNamed(V, ["nonRoot", "eptp", "tscRatio", "pdptesInMemory"]),
      ...fieldsNamed(SVMC, ["pauseCount", "pauseLast"]),
    ],
    pml4Reserved: 0x180,
    keepsResumeFlag: true,
    holdsInit: (cells) => cells[V.nonRoot >> 2] !== 0,
    guests: { boundary: guestBoundary, leave: (system) => void system.svmExit() },
    nested: buildNestedPaging,
    hooks: buildSvmHooks,
    functions: buildSvmFunctions,
  },
};

/** Functions that both fill under one name: every module may call them. */
export const HOOKS: ReadonlySet<string> = new Set([
  "nested",
  "intercept",
  "crShadow",
  "crMasked",
  "vectoringExit",
]);

/** Is it the group of the other vendor's instructions: undefined on this model. */
export function isForeign(group: string, model: CpuModel): boolean {
  return group !== virtualization[model].group &&
    Object.values(virtualization).some((v) => v.group === group);
}
