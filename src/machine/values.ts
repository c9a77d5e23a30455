/** Parts of conditions and moves that the virtualization extensions of both vendors need. */
import { EVENT_TYPE } from "../abi/x86/vectors.ts";
import { frameEntry } from "./mmu/walk.ts";
import { FRAME, FRAME_FLAG, gpr, V } from "./state.ts";
import { cell, cell64, MEMORY, setCell } from "./linkage.ts";
import { type Expr, i32, load, load128 } from "./wasm/expr.ts";
import type { Func, Local, Module } from "./wasm/module.ts";

/** 1 if physical address `pa` has bits this processor has not got. */
export const tooWide = (pa: Expr): Expr =>
  pa.and(cell64(V.reservedHigh).or(0xfff0_0000_0000_0000n)).nez();

/** 1 unless each byte of a page-attribute table is a memory type (0, 1, 4, 5, 6, 7). */
export function patInvalid(f: Func, pat: Expr): Local {
  const value = f.let(pat);
  // Types are below 8; 2 and 3 are those with bit 1 set and bit 2 clear.
  const two = value.and(0x0202_0202_0202_0202n), four = value.and(0x0404_0404_0404_0404n);
  return f.let(
    value.and(~0x0707_0707_0707_0707n).nez().or(two.and(four.shrU(1).not()).nez()),
  );
}

/** Copies `size` bytes (a multiple of 16) by v128 moves. */
export function copyBlock(
  f: Func,
  to: { base: Expr; offset: number; memory: number },
  from: { base: Expr; offset: number; memory: number },
  size: number,
): void {
  for (let i = 0; i < size; i += 16) {
    const value = load128(from.base, from.offset + i, from.memory);
    f.store128(to.base, value, to.offset + i, to.memory);
  }
}

/** Notes that the frame at `base` was written: it is memory like any other. */
export function markDirty(f: Func, base: Expr): void {
  const entry = f.let(frameEntry(base));
  const flags = load("i32", 32, "u", entry, FRAME.flags, MEMORY.frames);
  f.store(32, entry, flags.or(FRAME_FLAG.dirty), FRAME.flags, MEMORY.frames);
}

/** Delivers the event that an entry injects: INT n, INT1, INT3 and INTO are instructions, done with it. */
export function deliverInjected(f: Func): void {
  f.call("deliver");
  setCell(
    f,
    V.injected,
    cell(V.abort).eqz().and(cell(V.eventType).geU(EVENT_TYPE.softwareInterrupt)),
  );
}

/** `loadGprs(area)` and `storeGprs(area)`: the 16 general registers from and to a save area. */
export function buildGprs(m: Module): void {
  const own = { base: i32(0), offset: gpr(0), memory: MEMORY.cpu };
  m.func("loadGprs", ["i32"], [], (f, area) => {
    copyBlock(f, own, { base: area, offset: 0, memory: MEMORY.ram }, 128);
  });
  m.func("storeGprs", ["i32"], [], (f, area) => {
    copyBlock(f, { base: area, offset: 0, memory: MEMORY.ram }, own, 128);
    markDirty(f, area);
  });
}
