/** Where FXSAVE, XSAVE and their kin keep the state: address, alignment, pages. */
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { ACCESS, V } from "../../state.ts";
import { cell } from "../../linkage.ts";
import type { Local } from "../../wasm/module.ts";
import type { Meaning } from "./meaning.ts";
import { partAccess } from "./parts.ts";

/** The address of a state area of `size` bytes, aligned to `to`, whose pages can be accessed so. */
export function stateArea(
  m: Meaning,
  write: boolean,
  size: number,
  to: number,
  alignment: number,
): Local {
  const linear = m.addressOf(0, 4, false);
  m.f.if(linear.and(to - 1).nez(), () => {
    const unaligned = cell(V.access).and(ACCESS.align).nez().and(linear.and(3).nez());
    m.faultIf(unaligned, VECTOR.AC, 0, alignment, linear);
    m.fault(VECTOR.GP, 0, alignment, linear);
  });
  m.addressOf(0, size, write);
  const access = m.f.let(partAccess().or(write ? ACCESS.write : 0));
  m.callChecked("translate", m.f.call("partAt", linear, size - 1), access);
  m.callChecked("translate", linear, access);
  return linear;
}
