/** SSE conversions between formats and integers of 32 and 64 bits (SDM 1 11.4.1.6; SDM 2). */
import { F } from "../../float/cells.ts";
import { DOUBLE, type ElementFormat, SINGLE } from "../../float/sse.ts";
import { setCell } from "../../linkage.ts";
import { type Expr, i64 } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { join, lane64, withLane64 } from "./mmx_vector.ts";
import { begin, isMmx, lowOf, vectorOf, writeLow, writeRegister } from "./sse_access.ts";
import { assemble, elements, floating } from "./sse_float.ts";

/** Calls that round toward zero set the mode first. */
function truncated(m: Meaning, truncate: boolean): void {
  if (truncate) setCell(m.f, F.mode, 3);
}
/** An i64 as an integer of 32 bits in the low half. */
const low = (value: Expr): Expr => value.and(0xffff_ffffn);
/** The two signed 32-bit integers of an i64. */
const integers = (value: Local): Expr[] => [value.signed(32), value.shrS(32)];

/** CVTSI2SS, CVTSI2SD. */
const fromGeneral = (x: ElementFormat): Semantics => (m) => {
  begin(m);
  const value = m.read(1).sext();
  const result = floating(m, () => m.f.call(`fromInt${x.letter}`, value));
  writeLow(m, x.bits, result);
};
/** CVTSS2SI and its like. */
const toGeneral = (x: ElementFormat, truncate: boolean): Semantics => (m) => {
  begin(m);
  const value = lowOf(m, 1, x.bits), bits = m.form.sizes[0];
  const result = floating(m, () => {
    truncated(m, truncate);
    return m.f.call(`toInt${x.letter}`, value, bits);
  });
  m.write(0, bits === 64 ? result : result.wrap());
};

/** Four singles or two doubles to 32-bit integers; of doubles the upper half becomes zero. */
const toPacked = (x: ElementFormat, truncate: boolean): Semantics => (m) => {
  begin(m);
  const b = vectorOf(m, 1);
  const parts = floating(m, () => {
    truncated(m, truncate);
    return elements(m.f, x, b).map((e) => m.f.let(low(m.f.call(`toInt${x.letter}`, e, 32))));
  });
  const zero = i64(0);
  writeRegister(m, assemble(SINGLE, x === SINGLE ? parts : [...parts, zero, zero]));
};

const fromPacked: Semantics = (m) => {
  begin(m);
  const b = vectorOf(m, 1);
  const parts = floating(
    m,
    () =>
      ([0, 1] as const).flatMap((n) =>
        integers(m.f.let(lane64(b, n))).map((v) => m.f.call("fromIntS", v))
      ),
  );
  writeRegister(m, assemble(SINGLE, parts));
};
/** CVTDQ2PD is exact. */
const fromPackedDouble: Semantics = (m) => {
  begin(m);
  const parts = integers(lowOf(m, 1, 64)).map((v) => m.f.call("fromIntD", v));
  writeRegister(m, join(parts[0], parts[1]));
};

const widenPacked: Semantics = (m) => {
  begin(m);
  const b = lowOf(m, 1, 64);
  const parts = floating(m, () => [low(b), b.shrU(32)].map((e) => m.f.call("widen", e)));
  writeRegister(m, join(parts[0], parts[1]));
};
const narrowPacked: Semantics = (m) => {
  begin(m);
  const b = vectorOf(m, 1);
  const parts = floating(m, () => elements(m.f, DOUBLE, b).map((e) => m.f.call("narrow", e)));
  writeRegister(m, join(parts[0].or(parts[1].shl(32)), i64(0)));
};
const scalar = (from: ElementFormat, to: ElementFormat, name: string): Semantics => (m) => {
  begin(m);
  const b = lowOf(m, 1, from.bits);
  writeLow(m, to.bits, floating(m, () => m.f.call(name, b)));
};

// --- with MMX registers ---

/** CVTPI2PS, CVTPI2PD: a source in memory leaves the x87 alone. */
const fromMmx = (x: ElementFormat): Semantics => (m) => {
  const mmx = isMmx(m, 1);
  m.callChecked(mmx ? "sseMmxBegin" : "sseBegin");
  const value = isMmx(m, 1) ? m.f.let(m.vectorLow(1)) : m.f.let(m.readU(1).zext());
  const parts = floating(
    m,
    () => integers(value).map((v) => m.f.call(`fromInt${x.letter}`, v)),
    () => mmx && m.f.call("mmxEnter"),
  );
  m.commit();
  if (x === DOUBLE) writeRegister(m, join(parts[0], parts[1]));
  else {
    const both = m.f.let(parts[0].or(parts[1].shl(32)));
    writeRegister(m, withLane64(m.vector(0), 0, both));
  }
};
/** CVTPS2PI and its like. Processors enter MMX state before #XM. */
const toMmx = (x: ElementFormat, truncate: boolean): Semantics => (m) => {
  m.callChecked("sseMmxBegin");
  const source = x === DOUBLE
    ? elements(m.f, x, vectorOf(m, 1))
    : ((b) => [m.f.let(low(b)), m.f.let(b.shrU(32))])(lowOf(m, 1, 64));
  const parts = floating(m, () => {
    truncated(m, truncate);
    return source.map((e) => m.f.call(`toInt${x.letter}`, e, 32));
  }, () => m.f.call("mmxEnter"));
  m.setMmx(0, low(parts[0]).or(parts[1].shl(32)));
};

export const convertSemantics: Record<string, Semantics> = {
  cvtsi2ss: fromGeneral(SINGLE),
  cvtsi2sd: fromGeneral(DOUBLE),
  cvtss2si: toGeneral(SINGLE, false),
  cvtsd2si: toGeneral(DOUBLE, false),
  cvttss2si: toGeneral(SINGLE, true),
  cvttsd2si: toGeneral(DOUBLE, true),
  cvtps2dq: toPacked(SINGLE, false),
  cvtpd2dq: toPacked(DOUBLE, false),
  cvttps2dq: toPacked(SINGLE, true),
  cvttpd2dq: toPacked(DOUBLE, true),
  cvtdq2ps: fromPacked,
  cvtdq2pd: fromPackedDouble,
  cvtps2pd: widenPacked,
  cvtpd2ps: narrowPacked,
  cvtss2sd: scalar(SINGLE, DOUBLE, "widen"),
  cvtsd2ss: scalar(DOUBLE, SINGLE, "narrow"),
  cvtpi2ps: fromMmx(SINGLE),
  cvtpi2pd: fromMmx(DOUBLE),
  cvtps2pi: toMmx(SINGLE, false),
  cvtpd2pi: toMmx(DOUBLE, false),
  cvttps2pi: toMmx(SINGLE, true),
  cvttpd2pi: toMmx(DOUBLE, true),
};
