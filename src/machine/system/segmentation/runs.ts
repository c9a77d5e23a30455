/** Many iterations of REP MOVS and REP STOS at once, where nothing can go wrong in between. */
import { ABORT, CPU, segment, TLB, V } from "../../state.ts";
import { cell, cell64, MEMORY, setCell } from "../../linkage.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import { tlbIndex } from "../../mmu/access.ts";

const RCX = CPU.rcx, RSI = CPU.rsi, RDI = CPU.rdi;

const least = (f: Func, a: Local, b: Expr) => {
  const other = f.let(b);
  f.set(a, a.when(a.ltU(other), other));
};

/** Machine address of `linear` if the TLB of the running class has it, else the function returns 0. */
function hit(f: Func, linear: Local, table: number): Local {
  const entry = f.let(cell(V.tlb).add(tlbIndex(linear)));
  f.if(load("i64", 64, "u", entry, table).ne(linear.and(-4096n)), () => f.return(i32(0)));
  return f.let(linear.wrap().add(load("i32", 32, "u", entry, table + 8)));
}

/** Linear address of `count` elements at a pointer that does not wrap, else the function returns 0. */
function span(
  f: Func,
  place: Expr,
  at: Local,
  bytes: Local,
  count: Local,
  mask: Local,
  write: number,
): Local {
  const size = f.let(count.mul(bytes));
  f.if(at.add(size.zext()).gtU(mask), () => f.return(i32(0)));
  const linear = f.call("segmentLinear", place, at, size, i32(write));
  f.if(cell(V.abort), () => {
    // Part of it may still be allowed: the single step finds out.
    setCell(f, V.abort, ABORT.none);
    f.return(i32(0));
  });
  return linear;
}

/**
 * `moveRun(segment, bytes, mask, step)`, with the place of the source's segment register, and
 * `fillRun(value, bytes, mask, step)`: do n > 1 iterations of a repeated instruction and give n, or do
 * nothing and give 0. rCX and V.left then lack the last iteration, which the caller counts.
 */
export function buildRuns(m: Module): void {
  m.func("moveRun", ["i32", "i32", "i64", "i64"], ["i32"], (f, segment, bytes, mask, step) => {
    run(f, bytes, mask, step, { segment, at: f.let(cell64(RSI).and(mask)) });
  });
  m.func("fillRun", ["i64", "i32", "i64", "i64"], ["i32"], (f, value, bytes, mask, step) => {
    run(f, bytes, mask, step, { value });
  });
}

/** What goes to [ES:rDI]: what lies at [segment:rSI], or a value. */
type From = { segment: Local; at: Local } | { value: Local };

function run(f: Func, bytes: Local, mask: Local, step: Local, from: From): void {
  f.if(step.ltS(0).or(cell(V.watching)), () => f.return(i32(0)));
  const all = f.let(cell64(RCX).and(mask));
  const n = f.let(i32(0x1000).when(all.gtU(0x1000), all.wrap()));
  least(f, n, cell(V.left).add(1));
  const to = f.let(cell64(RDI).and(mask));
  const room = (linear: Expr) => i32(4096).sub(linear.wrap().and(4095)).divU(bytes);
  const one = f.let(i32(1));
  const toLinear = span(f, i32(segment(0)), to, bytes, one, mask, 1);
  least(f, n, room(toLinear));
  if ("at" in from) {
    least(f, n, room(span(f, from.segment, from.at, bytes, one, mask, 0)));
  }
  f.if(n.ltU(2), () => f.return(i32(0)));
  const toAddress = hit(f, span(f, i32(segment(0)), to, bytes, n, mask, 1), TLB.write);
  const size = f.let(n.mul(bytes));
  if ("at" in from) {
    const fromAddress = hit(f, span(f, from.segment, from.at, bytes, n, mask, 0), TLB.read);
    // A source that overlaps from below is repeated, which a block move would not do.
    f.if(toAddress.sub(fromAddress).ltU(size), () => f.return(i32(0)));
    f.copy(toAddress, fromAddress, size, MEMORY.ram);
    addPointer(f, RSI, from.at, size, mask);
  } else fillMemory(f, from.value, toAddress, size, bytes);
  addPointer(f, RDI, to, size, mask);
  const less = n.sub(1);
  addPointer(f, RCX, all, less.neg(), mask);
  setCell(f, V.left, cell(V.left).sub(less));
  f.result(n);
}

function addPointer(f: Func, at: number, old: Expr, by: Expr, mask: Local): void {
  const value = f.let(old.add(by.sext()));
  f.if(mask.eq(0xffff), () => f.store(16, i32(0), value, at), () => {
    f.store(64, i32(0), value.and(mask), at);
  });
}

/** A byte fill if all bytes of the value are the same, else element by element. */
function fillMemory(f: Func, value: Local, to: Local, size: Local, bytes: Local): void {
  const byte = f.let(value.and(0xff));
  const bits = i64(64).sub(bytes.zext().shl(3));
  const same = byte.mul(0x0101_0101_0101_0101n).xor(value).shl(bits).eqz();
  f.if(same, () => f.fill(to, byte.wrap(), size, MEMORY.ram), () => {
    const i = f.let(i32(0));
    f.loop((again) => {
      const at = f.let(to.add(i));
      for (const width of [8, 16, 32, 64]) {
        f.if(bytes.eq(width / 8), () => f.store(width, at, value, 0, MEMORY.ram));
      }
      f.set(i, i.add(bytes));
      f.brIf(again, i.ltU(size));
    });
  });
}
