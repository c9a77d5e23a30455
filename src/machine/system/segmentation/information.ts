/** LAR, LSL, VERR, VERW: what a descriptor allows, without loading it (SDM 2, SDM 3 5.10). */
import { V } from "../../state.ts";
import { cell } from "../../linkage.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import { ATTRIBUTE, attributesOf, dplOf, isNull, leaveIfAborted, limitOf } from "./descriptor.ts";
import { longMode } from "../../mode.ts";

/** System types LAR and LSL accept, as bit sets, outside and in IA-32e mode (SDM 2 tables 3-51, 3-62). */
const TYPES = {
  access: { legacy: [1, 2, 3, 4, 5, 9, 11, 12], long: [2, 9, 11, 12] },
  limit: { legacy: [1, 2, 3, 9, 11], long: [2, 9, 11] },
};
const bitSet = (list: readonly number[]) => i32(list.reduce((set, n) => set | 1 << n, 0));

/** Raw descriptor of a selector; the function returns 0 (ZF clear) if there is none to be seen. */
function look(f: Func, selector: Local): Local {
  f.if(isNull(selector), () => f.return(i32(0)));
  const at = f.call("descriptorAddress", selector, i32(8));
  f.if(at.eq(-1), () => f.return(i32(0)));
  const raw = f.call("ld64", at, cell(V.accessSystem));
  leaveIfAborted(f);
  return raw;
}

/** 1 if the descriptor's DPL hides it from CPL and RPL. */
function hidden(selector: Expr, attributes: Expr): Expr {
  const conforming = attributes.and(0x1c).eq(0x1c);
  const dpl = dplOf(attributes);
  return conforming.eqz().and(dpl.ltU(cell(V.cpl)).or(dpl.ltU(selector.and(3))));
}

/** `descriptorRights(selector)`, `descriptorLimit(selector)`: result in V.value and 1, or 0. */
function buildLook(m: Module, name: string, kind: keyof typeof TYPES, result: (raw: Expr) => Expr) {
  m.func(name, ["i32"], ["i32"], (f, selector) => {
    const raw = look(f, selector);
    const attributes = f.let(attributesOf(raw));
    f.if(attributes.and(ATTRIBUTE.system).eqz(), () => {
      const types = bitSet(TYPES[kind].long).when(longMode(), bitSet(TYPES[kind].legacy));
      f.if(types.shrU(attributes.and(15)).and(1).eqz(), () => f.return(i32(0)));
    });
    f.if(hidden(selector, attributes), () => f.return(i32(0)));
    f.store(32, i32(0), result(raw), V.value);
    f.result(i32(1));
  });
}

export function buildInformation(m: Module): void {
  buildLook(m, "descriptorRights", "access", (raw) => raw.shrU(32).wrap().and(0x00ff_ff00));
  buildLook(m, "descriptorLimit", "limit", limitOf);
  // verify(selector, write) -> ZF
  m.func("verifySegment", ["i32", "i32"], ["i32"], (f, selector, write) => {
    const raw = look(f, selector);
    const attributes = f.let(attributesOf(raw));
    f.if(attributes.and(ATTRIBUTE.system).eqz(), () => f.return(i32(0)));
    f.if(hidden(selector, attributes), () => f.return(i32(0)));
    const type = attributes.and(0xa);
    f.result(type.eq(2).when(write, type.ne(8)));
  });
}
