/** Addition, logic, comparison, increments (SDM 2). */
import { flagBits, RAX, RBX, RCX, RDX } from "../../../abi/x86/registers.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { i32 } from "../../wasm/expr.ts";
import type { Expr } from "../../wasm/expr.ts";
import { check } from "../../checks.ts";
import { RFLAGS } from "../../../abi/x86/cr.ts";
import type { Meaning, Semantics } from "./meaning.ts";

const CHECK = {
  alignment: check("cmpxchg16b.alignment", "address {a} is no multiple of 16", "SDM 2 CMPXCHG16B"),
};

/** OF (bit 11) from a value whose bit `width` - 1 is the overflow. */
export function overflowAt(value: Expr, width: number): Expr {
  return width === 64
    ? value.shrU(63).shl(flagBits.o).wrap()
    : (width < 12 ? value.shl(12 - width) : value.shrU(width - 12)).and(RFLAGS.OF);
}

const binary = (compute: (a: Expr, b: Expr) => Expr): Semantics => (m) => {
  const b = m.read(1), a = m.update(0);
  const r = m.f.let(compute(a, b).signed(m.size));
  m.write(0, r);
  m.flagsLogic(r);
};

/** ADC and SBB: the carry-in makes flags that neither kind of lazy flags can hold. */
function withCarry(subtract: boolean): Semantics {
  return (m) => {
    const b = m.read(1), a = m.update(0);
    const carry = m.carry();
    const c = m.type() === "i64" ? carry.zext() : carry;
    const r = m.f.let((subtract ? a.sub(b).sub(c) : a.add(b).add(c)).signed(m.size));
    const carryOut = subtract ? a.ltU(b).or(a.eq(b).and(carry)) : r.ltU(a).or(r.eq(a).and(carry));
    const overflow = subtract ? a.xor(b).and(a.xor(r)) : a.xor(r).and(b.xor(r));
    const adjust = a.xor(b).xor(r).wrap().and(RFLAGS.AF);
    const flags = m.f.let(adjust.or(overflowAt(overflow, m.size)));
    const out = m.f.let(carryOut);
    m.write(0, r);
    m.flagsResult(r, out, flags);
  };
}

function step(by: 1 | -1): Semantics {
  return (m) => {
    const r = m.f.let(m.update(0).add(by).signed(m.size));
    m.write(0, r);
    m.flagsStep(by, r);
  };
}

function exchangeAdd(m: Meaning): void {
  const a = m.update(0), b = m.read(1);
  const r = m.f.let(a.add(b).signed(m.size));
  if (m.isMemory(0)) {
    m.write(0, r);
    m.write(1, a);
  } else {
    // With the same register twice the sum stays.
    m.write(1, a);
    m.write(0, r);
  }
  m.flagsAdd(a, r);
}

function compareExchange(m: Meaning): void {
  const destination = m.update(0), source = m.read(1);
  const accumulator = m.f.let(m.gpr(RAX, m.size));
  const equal = m.f.let(accumulator.eq(destination));
  if (m.isMemory(0)) {
    // Memory is written either way (SDM 2 CMPXCHG).
    m.write(0, source.when(equal, destination));
    m.f.if(equal.eqz(), () => m.setGpr(RAX, m.size, destination));
  } else m.f.if(equal, () => m.write(0, source), () => m.setGpr(RAX, m.size, destination));
  m.flagsSub(accumulator, destination);
}

export const aluSemantics: Record<string, Semantics> = {
  add: (m) => {
    const b = m.read(1), a = m.update(0);
    const r = m.f.let(a.add(b).signed(m.size));
    m.write(0, r);
    m.flagsAdd(a, r);
  },
  sub: (m) => {
    const b = m.read(1), a = m.update(0);
    m.write(0, a.sub(b));
    m.flagsSub(a, b);
  },
  cmp: (m) => {
    const b = m.read(1), a = m.read(0);
    m.flagsSub(a, b);
  },
  and: binary((a, b) => a.and(b)),
  or: binary((a, b) => a.or(b)),
  xor: binary((a, b) => a.xor(b)),
  test: (m) => {
    const b = m.read(1), a = m.read(0);
    m.flagsLogic(m.f.let(a.and(b)));
  },
  adc: withCarry(false),
  sbb: withCarry(true),
  inc: step(1),
  dec: step(-1),
  not: (m) => m.write(0, m.update(0).not()),
  neg: (m) => {
    const a = m.update(0);
    m.write(0, a.neg());
    m.flagsSub(m.constant(0), a);
  },
  xadd: exchangeAdd,
  cmpxchg: compareExchange,
  cmc: (m) => m.setCarry(m.carry().xor(1)),
  clc: (m) => m.setCarry(i32(0)),
  stc: (m) => m.setCarry(i32(1)),
};

/** CMPXCHG8B and CMPXCHG16B. */
export const compareExchangePair: Record<string, Semantics> = {
  cmpxchg8b: (m) => {
    const place = m.addressOf(0, 8, true);
    const old = m.loadLinear(64, place, true);
    const expected = m.gprU(RDX, 32).zext().shl(32).or(m.gprU(RAX, 32).zext());
    const equal = m.f.let(old.eq(expected));
    const wanted = m.gprU(RCX, 32).zext().shl(32).or(m.gprU(RBX, 32).zext());
    m.storeLinear(64, place, m.f.let(wanted.when(equal, old)));
    m.f.if(equal.eqz(), () => {
      m.setGpr(RAX, 32, old.wrap());
      m.setGpr(RDX, 32, old.shrU(32).wrap());
    });
    m.setArithmeticFlags(RFLAGS.ZF, equal.shl(flagBits.z));
  },
  cmpxchg16b: (m) => {
    const place = m.addressOf(0, 16, true);
    m.faultIf(place.and(15).nez(), VECTOR.GP, 0, CHECK.alignment, place);
    // Aligned, so both halves lie in one page: what the first access may, the second may too.
    const low = m.loadLinear(64, place, true);
    const high = m.loadLinear(64, m.f.let(place.add(8)), true);
    const equal = m.f.let(low.eq(m.gpr(RAX, 64)).and(high.eq(m.gpr(RDX, 64))));
    m.storeLinear(64, place, m.f.let(m.gpr(RBX, 64).when(equal, low)));
    m.storeLinear(64, m.f.let(place.add(8)), m.f.let(m.gpr(RCX, 64).when(equal, high)));
    m.f.if(equal.eqz(), () => {
      m.setGpr(RAX, 64, low);
      m.setGpr(RDX, 64, high);
    });
    m.setArithmeticFlags(RFLAGS.ZF, equal.shl(flagBits.z));
  },
};
