/** Moves, exchanges, the stack (SDM 2). */
import { RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP } from "../../../abi/x86/registers.ts";
import { ARITHMETIC, RFLAGS } from "../../../abi/x86/cr.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Meaning, Semantics } from "./meaning.ts";

/** The flags that LAHF and SAHF move. */
const LOW = ARITHMETIC & 0xff;

/** Value of operand `from` in the width of operand `to`. */
function widen(m: Meaning, value: Expr, sign: boolean): Expr {
  if (m.size !== 64 || value.type === "i64") return value;
  return sign ? value.sext() : value.zext();
}

function exchange(m: Meaning): void {
  const a = m.update(0), b = m.read(1);
  if (m.isMemory(0)) {
    m.write(0, b);
    m.write(1, a);
    return;
  }
  m.write(0, b);
  m.write(1, a);
}

/** The type and width of stack operations: the operand size. */
const stackBits = (m: Meaning) => m.form.operandSize;

function pushAll(m: Meaning): void {
  const bits = stackBits(m);
  m.mayFaultLate = true;
  const pushed = [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI];
  // RSP goes back if a later store faults: nothing but the stack below it has changed.
  const stack = m.f.let(m.gpr(RSP, 64));
  m.undoing(() => m.restoreGpr(RSP, stack), () => {
    for (const n of pushed) m.push(bits, (n === RSP ? stack : m.gpr(n, 64)).wrap());
  });
}

/** Registers popped before a fault keep their new values; the stack pointer does not move. */
function popAll(m: Meaning): void {
  const bits = stackBits(m), bytes = bits / 8;
  m.mayFaultLate = true;
  [RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX].forEach((n, i) => {
    if (n !== RSP) m.setGpr(n, bits, m.stackRead(bits, i * bytes));
  });
  m.dropStack(8 * bytes);
}

function enter(m: Meaning): void {
  const bits = stackBits(m), bytes = bits / 8, f = m.f;
  m.mayFaultLate = true;
  const saved = f.let(m.gpr(RSP, 64));
  const size = f.let(m.immediate(0).and(0xffff));
  const level = f.let(m.secondImmediate.and(31));
  const narrow = (value: Expr) => bits === 64 ? value : value.wrap();
  m.undoing(() => m.restoreGpr(RSP, saved), () => {
    m.push(bits, narrow(m.gpr(RBP, 64)));
    const frame = f.let(m.gpr(RSP, 64));
    const base = f.let(m.gpr(RBP, 64)), mask = m.stackMask();
    f.if(level.nez(), () => {
      const i = f.let(i32(1));
      f.while(() => i.ltU(level), () => {
        f.set(base, base.sub(bytes));
        m.push(bits, m.loadStack(bits, m.stackLinear(base.and(mask), bytes, false)));
        f.set(i, i.add(1));
      });
      m.push(bits, narrow(frame));
    });
    m.dropStack(size.neg());
    // The new top must be writable (SDM 2 ENTER).
    m.loadLinear(bits, m.stackLinear(m.pointer(RSP, mask), bytes, true), true);
    m.setGpr(RBP, bits, narrow(frame));
  });
}

function leave(m: Meaning): void {
  const bits = stackBits(m), bytes = bits / 8;
  const mask = m.stackMask();
  const base = m.f.let(m.pointer(RBP, mask));
  const value = m.loadStack(bits, m.stackLinear(base, bytes, false));
  m.setPointer(RSP, mask, base.add(bytes));
  m.setGpr(RBP, bits, value);
}

export const dataSemantics: Record<string, Semantics> = {
  mov: (m) => m.write(0, m.read(1)),
  movnti: (m) => m.write(0, m.read(1)),
  movzx: (m) => m.write(0, widen(m, m.readU(1), false)),
  movsx: (m) => m.write(0, widen(m, m.read(1), true)),
  movsxd: (m) => {
    if (m.size !== 16 || !m.isMemory(1)) return m.write(0, widen(m, m.read(1), true));
    const value = m.f.local("i32");
    m.f.if(
      asAmd("movsxd.16"),
      () => m.f.set(value, m.loadLinear(32, m.addressOf(1, 4, false)).signed(16)),
      () => m.f.set(value, m.read(1)),
    );
    m.write(0, value);
  },
  movbe: (m) => m.write(0, swapBytes(m.readU(1), m.size)),
  lea: (m) => m.write(0, m.offset(1)),
  xchg: exchange,
  xlat: (m) => {
    const offset = m.gpr(RBX, 64).add(m.gprU(RAX, 8).zext()).and(m.addressMask());
    const linear = m.callChecked("segmentLinear", m.segment, offset, i32(1), i32(0));
    m.setGpr(RAX, 8, m.loadLinear(8, linear));
  },
  bswap: (m) => {
    // With a 16-bit operand the result is undefined; processors give zero.
    m.write(0, m.size === 16 ? i32(0) : swapBytes(m.read(0), m.size));
  },
  cmovcc: (m) => {
    // The source is read even if the condition is false.
    const value = m.read(1), old = m.read(0);
    m.write(0, value.when(m.f.let(m.condition(m.form.cc)), old));
  },
  setcc: (m) => m.write(0, m.f.let(m.condition(m.form.cc)).nez()),
  push: (m) => {
    const bits = stackBits(m);
    const value = m.read(0);
    m.push(bits, value.type === "i32" && bits === 64 ? value.sext() : value);
  },
  pop: (m) => {
    const bits = stackBits(m);
    const value = m.stackRead(bits);
    if (!m.isMemory(0)) {
      m.dropStack(bits / 8);
      m.write(0, value);
      return;
    }
    // The address is computed with the stack pointer already moved (SDM 2 POP).
    m.mayFaultLate = true;
    const saved = m.f.let(m.gpr(RSP, 64));
    m.dropStack(bits / 8);
    m.undoing(() => m.restoreGpr(RSP, saved), () => {
      m.storeLinear(bits, m.addressOf(0, bits / 8, true), value);
    });
  },
  pusha: pushAll,
  popa: popAll,
  enter,
  leave,
  cbw: (m) => {
    const bits = m.form.operandSize;
    m.setGpr(RAX, bits, bits === 64 ? m.gpr(RAX, 32).sext() : m.gpr(RAX, bits / 2));
  },
  cwd: (m) => {
    const bits = m.form.operandSize;
    m.setGpr(RDX, bits, m.gpr(RAX, bits).shrS(bits === 64 ? 63 : 31));
  },
  lahf: (m) => m.setHighByte(RAX, m.arithmeticFlags(LOW).and(LOW).or(RFLAGS.fixed)),
  sahf: (m) => m.setArithmeticFlags(LOW, m.highByte(RAX)),
  salc: (m) => m.setGpr(RAX, 8, m.carry().neg()),
  cld: (m) => setDirection(m, 0),
  std: (m) => setDirection(m, RFLAGS.DF),
  nop: () => {},
};
for (
  const hint of ["prefetchnta", "prefetcht0", "prefetcht1", "prefetcht2", "prefetch", "prefetchw"]
) {
  dataSemantics[hint] = () => {};
}

function setDirection(m: Meaning, bit: number): void {
  m.commit();
  m.setSystemFlags(bit, RFLAGS.DF);
}

function swapBytes(value: Expr, bits: number): Expr {
  if (bits === 16) return value.shl(8).or(value.shrU(8).and(0xff));
  if (bits === 32) return value.rotl(8).and(0x00ff00ff).or(value.rotr(8).and(0xff00ff00 | 0));
  const pairs = value.and(0x00ff00ff00ff00ffn).shl(8).or(value.shrU(8).and(0x00ff00ff00ff00ffn));
  const words = pairs.and(0x0000ffff0000ffffn).shl(16).or(pairs.shrU(16).and(0x0000ffff0000ffffn));
  return words.rotl(32);
}
