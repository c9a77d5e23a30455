/** Arithmetic on 128 bits, in pairs of i64. Results of two words lie in F.hi and F.lo. */
import { setCell64 } from "../linkage.ts";
import { type Expr, i64 } from "../wasm/expr.ts";
import type { Func, Module } from "../wasm/module.ts";
import { F } from "./cells.ts";

export function setWide(f: Func, high: Expr, low: Expr): void {
  const h = f.let(high), l = f.let(low);
  setCell64(f, F.hi, h);
  setCell64(f, F.lo, l);
}

/**
 * Functions (i64 unsigned throughout):
 * `fMulHi(a, b)` upper half of the product; `fDiv64(high, low, d)` quotient of high:low by d
 * (high < d, d >= 2^63), remainder in F.lo; `fShiftRight(high, low, n)` with a sticky lowest bit;
 * `fNormalize(high, low)` -> leading zeros, shifted out of F.hi:F.lo;
 * `fMulWide(ah, al, bh, bl)` upper 128 bits of the product, short by a few units of its lowest bit;
 * `fDivWide(nh, nl, dh, dl)` 2^127 * n / d for n < 2d < 2^129, cut off, sticky lowest bit.
 */
export function buildWide(m: Module): void {
  m.func("fMulHi", ["i64", "i64"], ["i64"], (f, a, b) => {
    const a0 = f.let(a.and(0xffff_ffffn)), a1 = f.let(a.shrU(32));
    const b0 = f.let(b.and(0xffff_ffffn)), b1 = f.let(b.shrU(32));
    const middle = f.let(a1.mul(b0).add(a0.mul(b0).shrU(32)));
    const other = f.let(a0.mul(b1).add(middle.and(0xffff_ffffn)));
    f.result(a1.mul(b1).add(middle.shrU(32)).add(other.shrU(32)));
  }, false);
  buildDiv64(m);
  m.func("fShiftRight", ["i64", "i64", "i32"], [], (f, high, low, n) => {
    f.if(n.eqz(), () => {
      setWide(f, high, low);
      f.return();
    });
    const by = f.let(n.zext());
    f.if(n.ltU(64), () => {
      const lost = low.shl(i64(64).sub(by)).nez().zext();
      setWide(f, high.shrU(by), high.shl(i64(64).sub(by)).or(low.shrU(by)).or(lost));
      f.return();
    });
    f.if(n.ltU(128), () => {
      const rest = f.let(high.shl(i64(128).sub(by)));
      f.if(n.eq(64), () => f.set(rest, i64(0)));
      setWide(f, i64(0), high.shrU(by.sub(64)).or(low.or(rest).nez().zext()));
      f.return();
    });
    setWide(f, i64(0), high.or(low).nez().zext());
  }, false);
  m.func("fNormalize", ["i64", "i64"], ["i32"], (f, high, low) => {
    const n = f.let(i64(0));
    f.if(high.eqz(), () => {
      f.set(n, i64(64));
      f.set(high, low);
      f.set(low, i64(0));
    });
    const z = f.let(high.clz());
    f.if(z.nez().and(z.ltU(64)), () => {
      f.set(high, high.shl(z).or(low.shrU(i64(64).sub(z))));
      f.set(low, low.shl(z));
    });
    setWide(f, high, low);
    f.result(n.add(z).wrap());
  }, false);
  m.func("fMulWide", ["i64", "i64", "i64", "i64"], [], (f, ah, al, bh, bl) => {
    const low = f.let(ah.mul(bh)), high = f.let(f.call("fMulHi", ah, bh));
    for (const cross of [f.call("fMulHi", ah, bl), f.call("fMulHi", al, bh)]) {
      f.set(low, low.add(cross));
      f.set(high, high.add(low.ltU(cross).zext()));
    }
    setWide(f, high, low);
  }, false);
  m.func("fDivWide", ["i64", "i64", "i64", "i64"], [], (f, nh, nl, dh, dl) => {
    const qh = f.let(i64(0)), ql = f.let(i64(0)), n = f.let(i64(128));
    const over = f.local("i64");
    f.loop((again) => {
      f.set(qh, qh.shl(1).or(ql.shrU(63)));
      f.set(ql, ql.shl(1));
      f.if(over.nez().or(nh.gtU(dh)).or(nh.eq(dh).and(nl.geU(dl))), () => {
        f.set(nh, nh.sub(dh).sub(nl.ltU(dl).zext()));
        f.set(nl, nl.sub(dl));
        f.set(ql, ql.or(1));
      });
      f.set(over, nh.shrU(63));
      f.set(nh, nh.shl(1).or(nl.shrU(63)));
      f.set(nl, nl.shl(1));
      f.set(n, n.sub(1));
      f.brIf(again, n.nez());
    });
    setWide(f, qh, ql.or(nh.or(nl).or(over).nez().zext()));
  }, false);
}

function buildDiv64(m: Module): void {
  // Two quotient digits of 32 bits (Knuth 4.3.1 D, with the divisor normalized).
  m.func("fDiv64", ["i64", "i64", "i64"], ["i64"], (f, high, low, d) => {
    const d1 = f.let(d.shrU(32)), d0 = f.let(d.and(0xffff_ffffn));
    const digit = (next: Expr) => {
      const q = f.let(high.divU(d1));
      const r = f.let(high.sub(q.mul(d1)));
      const piece = f.let(next);
      f.block((done) =>
        f.loop((again) => {
          const fits = q.leU(0xffff_ffffn).and(q.mul(d0).leU(r.shl(32).or(piece)));
          f.brIf(done, fits);
          f.set(q, q.sub(1));
          f.set(r, r.add(d1));
          f.brIf(again, r.leU(0xffff_ffffn));
        })
      );
      f.set(high, high.shl(32).or(piece).sub(q.mul(d)));
      return q;
    };
    const q1 = digit(low.shrU(32));
    const q0 = digit(low.and(0xffff_ffffn));
    setCell64(f, F.lo, high);
    f.result(q1.shl(32).or(q0));
  }, false);
}
