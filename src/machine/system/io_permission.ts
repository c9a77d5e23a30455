/** Which ports the running code may use: IOPL and the TSS's permission bitmap (SDM 1 18.5). */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { check } from "../checks.ts";
import { cell } from "../linkage.ts";
import { iopl, protectedMode, virtual8086 } from "../mode.ts";
import { V } from "../state.ts";
import { i32 } from "../wasm/expr.ts";
import type { Module } from "../wasm/module.ts";
import {
  attributesAt,
  baseAt,
  callChecked,
  failIf,
  limitAt,
  TR,
  wrapSystem,
} from "./segmentation/descriptor.ts";

const CHECK = {
  noMap: check(
    "io.map",
    "port {a}: CPL above IOPL and the TSS (limit {b}) has no permission bits for it",
    "SDM 1 18.5.2",
  ),
  denied: check(
    "io.denied",
    "port {a}: CPL above IOPL and the TSS's permission bits {b} forbid it",
    "SDM 1 18.5.2",
  ),
};

/** `ioPermission(port, bytes)`: #GP(0) if the running code may not use these ports. */
export function buildIoPermission(m: Module): void {
  m.func("ioPermission", ["i32", "i32"], [], (f, port, bytes) => {
    f.if(protectedMode().eqz(), () => f.return());
    f.if(virtual8086().eqz().and(cell(V.cpl).leU(iopl())), () => f.return());
    const limit = f.let(limitAt(TR));
    // Only 32-bit task states have a map.
    const short = limit.ltU(0x67).or(attributesAt(TR).and(8).eqz());
    failIf(f, short, VECTOR.GP, 0, CHECK.noMap, port, limit);
    const base = baseAt(TR);
    const map = callChecked(f, "ld16", wrapSystem(base.add(0x66)), cell(V.accessSystem));
    const at = f.let(map.add(port.shrU(3)));
    failIf(f, at.add(1).gtU(limit), VECTOR.GP, 0, CHECK.noMap, port, limit);
    const bits = callChecked(f, "ld16", wrapSystem(base.add(at.zext())), cell(V.accessSystem));
    const mask = i32(1).shl(bytes).sub(1).shl(port.and(7));
    failIf(f, bits.and(mask).nez(), VECTOR.GP, 0, CHECK.denied, port, bits);
  });
}
