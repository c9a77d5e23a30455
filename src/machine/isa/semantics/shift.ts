/** Shifts and rotates (SDM 2). A count of zero changes nothing, flags included. */
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import { overflowAt } from "./alu.ts";
import type { Meaning, Semantics } from "./meaning.ts";

/** The count operand under its mask, as an i32. */
function count(m: Meaning, operand: number): Local {
  return m.f.let(m.readU(operand).wrap().and(m.size === 64 ? 63 : 31));
}

const like = (m: Meaning, value: Expr) => m.type() === "i64" ? value.zext() : value;

/** What a count of zero does, if it does anything. */
const zeroCount = (m: Meaning) => m.losesUpper(0) ? () => m.clearUpper(0) : undefined;

/** For memory operands the access is made even if the count is zero. */
function shift(
  kind: "shl" | "shr" | "sar",
): Semantics {
  return (m) => {
    const n = count(m, 1);
    const a = kind === "sar" ? m.update(0) : m.updateU(0);
    m.f.if(n.nez(), () => {
      const by = like(m, n);
      const f = m.f;
      let r: Local, carry: Expr, overflow: Expr;
      if (kind === "shl") {
        if (m.size === 64) {
          r = f.let(a.shl(by));
          carry = a.shrU(i64(64).sub(by)).wrap().and(1);
        } else {
          const wide = f.let(a.zext().shl(n.zext()));
          r = f.let(wide.wrap().signed(m.size));
          carry = wide.shrU(m.size).wrap().and(1);
        }
        // As for a count of one, whatever the count (undefined then).
        overflow = overflowAt(a.xor(a.shl(1)), m.size);
      } else {
        r = f.let((kind === "sar" ? a.shrS(by) : a.shrU(by)).signed(m.size));
        carry = (kind === "sar" ? a.shrS(by.sub(1)) : a.shrU(by.sub(1))).wrap().and(1);
        overflow = kind === "sar" ? i32(0) : overflowAt(a, m.size);
      }
      m.write(0, r);
      m.flagsResult(r, carry, overflow);
    }, zeroCount(m));
  };
}

/** For counts other than one OF is undefined, and here as on a 386 (test386 shows it). */
function rotate(left: boolean): Semantics {
  return (m) => {
    const n = count(m, 1);
    const a = m.updateU(0);
    m.f.if(n.nez(), () => {
      const f = m.f;
      let r: Expr;
      if (m.size >= 32) r = left ? a.rotl(like(m, n)) : a.rotr(like(m, n));
      else {
        const by = f.let(n.and(m.size - 1));
        const other = i32(m.size).sub(by);
        r = left ? a.shl(by).or(a.shrU(other)) : a.shrU(by).or(a.shl(other));
      }
      const result = f.let(r);
      const top = result.shrU(m.size - 1).wrap().and(1);
      const carry = f.let(left ? result.wrap().and(1) : top);
      const second = left ? carry : result.shrU(m.size - 2).wrap().and(1);
      m.write(0, result);
      m.setCarryOverflow(carry, top.xor(second));
    }, zeroCount(m));
  };
}

/** RCL and RCR turn operand and CF as one number of size + 1 bits. */
function rotateCarry(left: boolean): Semantics {
  return (m) => {
    const masked = count(m, 1);
    const a = m.updateU(0);
    const f = m.f;
    m.f.if(masked.nez(), () => {
      const n = m.size < 32 ? f.let(masked.remU(m.size + 1)) : masked;
      const carry = m.carry();
      const r = f.local(m.type()), out = f.local("i32");
      if (m.size === 64) {
        const by = n.zext();
        // Shifts by 64 would be by 0: the last bit goes in two steps.
        f.set(out, (left ? a.shrU(i64(64).sub(by)) : a.shrU(by.sub(1))).wrap().and(1));
        f.set(
          r,
          left
            ? a.shl(by).or(carry.zext().shl(by.sub(1))).or(a.shrU(1).shrU(i64(64).sub(by)))
            : a.shrU(by).or(carry.zext().shl(i64(64).sub(by))).or(a.shl(1).shl(i64(64).sub(by))),
        );
      } else {
        const wide = f.let(a.zext().or(carry.zext().shl(m.size)));
        const by = n.zext(), back = i64(m.size + 1).sub(by);
        const turned = f.let(
          left ? wide.shl(by).or(wide.shrU(back)) : wide.shrU(by).or(wide.shl(back)),
        );
        f.set(r, turned.wrap());
        f.set(out, turned.shrU(m.size).wrap().and(1));
        f.if(n.eqz(), () => f.set(out, carry));
      }
      const top = r.shrU(m.size - 1).wrap().and(1);
      const second = left ? out : r.shrU(m.size - 2).wrap().and(1);
      const overflow = f.let(top.xor(second));
      m.write(0, r);
      m.setCarryOverflow(out, overflow);
    }, zeroCount(m));
  };
}

/** SHLD and SHRD. A 16-bit shift by more than 16 turns destination and source further round. */
function shiftDouble(left: boolean): Semantics {
  return (m) => {
    const n = count(m, 2);
    const source = m.readU(1), a = m.updateU(0);
    m.f.if(n.nez(), () => {
      const f = m.f;
      const by = n.zext();
      let result: Expr, carry: Expr;
      if (m.size === 64) {
        const back = i64(64).sub(by);
        result = left ? a.shl(by).or(source.shrU(back)) : a.shrU(by).or(source.shl(back));
        carry = (left ? a.shrU(back) : a.shrU(by.sub(1))).wrap().and(1);
      } else if (m.size === 32) {
        const wide = left ? a.zext().shl(32).or(source.zext()) : source.zext().shl(32).or(a.zext());
        result = left ? wide.shl(by).shrU(32).wrap() : wide.shrU(by).wrap();
        carry = (left ? a.zext().shrU(i64(32).sub(by)) : a.zext().shrU(by.sub(1))).wrap().and(1);
      } else {
        const wide = f.let(
          left
            ? a.zext().shl(32).or(source.zext().shl(16)).or(a.zext())
            : a.zext().shl(32).or(source.zext().shl(16)).or(a.zext()),
        );
        result = left ? wide.shl(by).shrU(32).wrap() : wide.shrU(by).wrap();
        carry = (left ? wide.shrU(i64(48).sub(by)) : wide.shrU(by.sub(1))).wrap().and(1);
      }
      const r = f.let(result.signed(m.size));
      const c = f.let(carry);
      const overflow = f.let(overflowAt(r.xor(a), m.size));
      m.write(0, r);
      m.flagsResult(r, c, overflow);
    }, zeroCount(m));
  };
}

export const shiftSemantics: Record<string, Semantics> = {
  shl: shift("shl"),
  shr: shift("shr"),
  sar: shift("sar"),
  rol: rotate(true),
  ror: rotate(false),
  rcl: rotateCarry(true),
  rcr: rotateCarry(false),
  shld: shiftDouble(true),
  shrd: shiftDouble(false),
};
