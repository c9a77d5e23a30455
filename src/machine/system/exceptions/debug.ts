/** Breakpoints by the debug registers (SDM 3 17.2.4 to 17.2.6): what DR7 says of an access. */
import { CPU, debugRegister } from "../../state.ts";
import { cell, cell64, setCell64 } from "../../linkage.ts";
import { i32, i64 } from "../../wasm/expr.ts";
import type { Module } from "../../wasm/module.ts";

/** What an access is, in the numbers of DR7's R/W fields; a read matches "read or write" only. */
export const DEBUG_ACCESS = { execute: 0, write: 1, io: 2, read: 3 } as const;

/** Bits L0 to G3: any breakpoint enabled. */
export const DR7_ENABLED = 0xff;

/**
 * `debugMatch(address, bytes, access) -> 0 | 1`: whether an enabled breakpoint covers the access
 * (linear address, or port for I/O). Its bits are then set in CPU.pendingDebug, those of breakpoints
 * that match without being enabled too, as the processor does.
 */
export function buildDebugMatch(m: Module): void {
  m.func("debugMatch", ["i64", "i32", "i32"], ["i32"], (f, address, bytes, access) => {
    const dr7 = f.let(cell(CPU.dr7)), hit = f.let(i32(0)), matched = f.let(i32(0));
    f.if(dr7.and(DR7_ENABLED).eqz(), () => f.return(i32(0)));
    const last = f.let(address.add(bytes.zext()).sub(1));
    for (let n = 0; n < 4; n++) {
      const kind = f.let(dr7.shrU(16 + 4 * n).and(3));
      const length = dr7.shrU(18 + 4 * n).and(3);
      // LEN 0, 1, 3: 1, 2, 4 bytes; 2: 8 bytes. An address is taken aligned to the length.
      const mask = f.let(i64(7).when(length.eq(2), length.zext()));
      const start = f.let(cell64(debugRegister(n)).and(mask.not()));
      const both = kind.eq(3).and(access.eq(DEBUG_ACCESS.write));
      const covers = start.leU(last).and(start.add(mask).geU(address));
      f.if(kind.eq(access).or(both).and(covers), () => {
        f.set(matched, matched.or(1 << n));
        f.set(hit, hit.or(dr7.shrU(2 * n).and(3)));
      });
    }
    f.if(hit, () => {
      setCell64(f, CPU.pendingDebug, cell64(CPU.pendingDebug).or(matched.zext()));
    });
    f.result(hit.nez());
  });
}
