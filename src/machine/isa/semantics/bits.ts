/** Bit tests and scans (SDM 2). */
import { ARITHMETIC } from "../../../abi/x86/cr.ts";
import { flagBits } from "../../../abi/x86/registers.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";

type Change = (value: Expr, bit: Expr) => Expr;

/** With a register for the bit number, memory is addressed as one string of bits. */
function bitTest(change?: Change): Semantics {
  return (m) => {
    const f = m.f, bits = m.size;
    const string = m.isMemory(0) && m.form.operands[1] === "r";
    const number = m.read(1);
    const index = f.let(
      (m.form.operands[1] === "i" && m.type() === "i64" && number.type === "i32"
        ? number.zext()
        : number).and(bits - 1),
    );
    let value: Local, place: Local | undefined;
    if (string) {
      place = bitStringAddress(m, number, change !== undefined);
      value = m.loadLinear(bits, place, change !== undefined);
    } else value = change ? m.update(0) : m.read(0);
    const bit = f.let((m.type() === "i64" ? i64(1) : i32(1)).shl(index));
    const carry = f.let(value.and(bit).nez());
    if (change) {
      const result = f.let(change(value, bit));
      if (place) m.storeLinear(bits, place, result);
      else m.write(0, result);
    }
    m.setCarry(carry);
  };
}

function bitStringAddress(m: Meaning, number: Expr, write: boolean): Local {
  const f = m.f, bytes = m.size / 8;
  const step = f.let(number.sext().shrS(Math.log2(m.size)).mul(bytes));
  const offset = f.let(m.segmentOffset().add(step).and(m.addressMask()));
  return m.callChecked("segmentLinear", m.segment, offset, i32(bytes), i32(write ? 1 : 0));
}

/**
 * BSF and BSR leave the destination alone for a zero source. The manual defines ZF only; Intel's
 * processors clear the others and give PF by the result.
 */
function scan(reverse: boolean): Semantics {
  return (m) => {
    const f = m.f;
    const value = m.readU(1);
    const top = m.type() === "i64" ? 63 : 31;
    const flags = f.let(m.constant(0));
    f.if(value.eqz().eqz(), () => {
      const index = f.let(reverse ? m.constant(top).sub(value.clz()) : value.ctz());
      m.write(0, index);
      // Not zero, with the parity of the index.
      f.set(flags, index.or(0x100));
    });
    m.flagsLogic(flags);
  };
}

export const bitSemantics: Record<string, Semantics> = {
  bt: bitTest(),
  bts: bitTest((v, b) => v.or(b)),
  btr: bitTest((v, b) => v.and(b.not())),
  btc: bitTest((v, b) => v.xor(b)),
  bsf: scan(false),
  bsr: scan(true),
  popcnt: (m) => {
    const value = m.readU(1);
    m.write(0, value.popcnt());
    m.setArithmeticFlags(ARITHMETIC, value.eqz().shl(flagBits.z));
  },
  crc32: (m) => {
    const f = m.f, bits = m.form.sizes[1];
    const crc = f.let(m.readU(0).wrap());
    const value = m.readU(1).zext();
    const data = f.let(value.xor(crc.zext()));
    // Shift the low bits out through the reversed polynomial.
    const rest = f.let(crc.zext().shrU(bits < 32 ? bits : 32));
    if (bits < 64) f.set(data, data.and(i64((1n << BigInt(bits)) - 1n)));
    const i = f.let(i32(bits));
    f.loop((again) => {
      f.set(data, data.shrU(1).xor(i64(0x82f63b78).and(data.and(1).neg())));
      f.set(i, i.sub(1));
      f.brIf(again, i);
    });
    m.write(0, m.type() === "i64" ? data.xor(rest) : data.xor(rest).wrap());
  },
};
