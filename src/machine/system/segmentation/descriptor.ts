/**
 * Segment descriptors (SDM 3 3.4.5, 3.5) as the functions of this module read them: raw 8 bytes in an
 * i64, and the fields taken out of them in the format of the segment registers (see state.ts).
 */
import { EVENT_TYPE, VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU, SEGMENT, segment, SEGMENT_SIZE, V } from "../../state.ts";
import { areaOf, cells } from "../../wasm/cells.ts";
import { cell, cell64, noteFault, setCell, setCell64 } from "../../linkage.ts";
import { longMode } from "../../mode.ts";
import { check } from "../../checks.ts";
import { type Expr, i32, i64, load, type Operand } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";

/** Cells through which these functions hand each other more than one result. */
export const LINK = cells(areaOf(V, "link"), {
  /** Linear address of the descriptor that `descriptorOf` read last, i64. */
  descriptorAt: 8,
  /** Stack pointer and selector that `innerStack` read, i64 and i32. */
  stackPointer: 8,
  stackSelector: 4,
  /** Not zero: a task switch is past its point of no return; faults belong to the new task. */
  taskSwitched: 4,
  /** SS and RSP as they were before a switch of stacks: 32 + 8 bytes. */
  savedStack: SEGMENT_SIZE,
  savedPointer: 8,
});

export const ES = segment(0), CS = segment(1), SS = segment(2), DS = segment(3), FS = segment(4);
export const GS = segment(5), LDTR = segment(6), TR = segment(7);

/** Attribute bits of a segment register. */
export const ATTRIBUTE = {
  system: 0x10,
  present: 0x80,
  long: 0x2000,
  big: 0x4000,
  unusable: 0x1_0000,
};

const CHECK = {
  table: check("selector.limit", "selector {a} lies outside its descriptor table", "SDM 3 3.4.2"),
};

export const attributesOf = (raw: Expr): Expr => raw.shrU(40).wrap().and(0xf0ff);
export const baseOf = (raw: Expr): Expr =>
  raw.shrU(16).and(0xff_ffff).or(raw.shrU(32).and(0xff00_0000n));
export const limitOf = (raw: Expr): Expr => {
  const limit = raw.and(0xffff).or(raw.shrU(32).and(0xf_0000)).wrap();
  return limit.shl(12).or(0xfff).when(raw.shrU(55).wrap().and(1), limit);
};
/** DPL of attributes. */
export const dplOf = (attributes: Expr): Expr => attributes.shrU(5).and(3);
/** 1 for code and data descriptors with the code bit: S = 1, type 8 to 15. */
export const isCode = (attributes: Expr): Expr => attributes.and(0x18).eq(0x18);
/** 1 for writable data. */
export const isWritable = (attributes: Expr): Expr => attributes.and(0x1a).eq(0x12);
export const isNull = (selector: Expr): Expr => selector.and(0xfffc).eqz();

/** Attributes of the segment register at `place`. */
export const attributesAt = (place: Operand): Expr =>
  load("i32", 32, "u", place, SEGMENT.attributes);
export const selectorAt = (place: Operand): Expr => load("i32", 32, "u", place, SEGMENT.selector);
export const limitAt = (place: Operand): Expr => load("i32", 32, "u", place, SEGMENT.limit);
export const baseAt = (place: Operand): Expr => load("i64", 64, "u", place, SEGMENT.base);

/**
 * The EXT bit of an error code (SDM 3 6.13): 1 while an event is delivered that is not a software
 * interrupt, INT3 or INTO. V.vectoring names the event; it is 0 outside of deliveries.
 */
export const ext = (): Expr => {
  const type = cell(V.vectoring).shrU(8).and(7);
  return cell(V.vectoring).shrU(31).and(type.ne(EVENT_TYPE.softwareInterrupt)).and(
    type.ne(EVENT_TYPE.softwareException),
  );
};
/** Error code of a selector: its index and table, and EXT. */
export const selectorError = (selector: Expr): Expr => selector.and(0xfffc).or(ext());

/** Leaves a function whose caller looks at V.abort. */
export function leave(f: Func): void {
  const result = f.results[0];
  if (!result) f.return();
  else f.return(result === "i64" ? i64(0) : i32(0));
}
export function leaveIfAborted(f: Func): void {
  f.if(cell(V.abort), () => leave(f));
}
/** Raises an exception and leaves the function if `condition` holds. */
export function failIf(
  f: Func,
  condition: Expr,
  vector: number,
  code: Operand | undefined,
  id: number,
  a?: Expr,
  b?: Expr,
): void {
  f.if(condition, () => {
    noteFault(f, vector, code, id, a, b);
    leave(f);
  });
}
/** The same with a vector that is known at run time only. */
export function failWith(
  f: Func,
  condition: Expr,
  vector: Expr,
  code: Operand,
  id: number,
  a?: Expr,
  b?: Expr,
): void {
  f.if(condition, () => {
    noteFault(f, VECTOR.GP, code, id, a, b);
    setCell(f, V.vector, vector);
    leave(f);
  });
}
/** Calls a function and leaves if it failed. */
export function callChecked(f: Func, name: string, ...args: Operand[]): Local {
  const result = f.call(name, ...args);
  leaveIfAborted(f);
  return result;
}

/** Writes base, limit, attributes and selector of the segment register at `place`. */
export function setSegment(
  f: Func,
  place: Operand,
  selector: Expr,
  base: Expr,
  limit: Expr,
  attributes: Expr,
): void {
  f.store(64, place, base, SEGMENT.base);
  f.store(32, place, limit, SEGMENT.limit);
  f.store(32, place, attributes, SEGMENT.attributes);
  f.store(32, place, selector, SEGMENT.selector);
}
/** What a null selector leaves in a data segment register. */
export function setNull(f: Func, place: Operand, selector: Expr = i32(0)): void {
  setSegment(f, place, selector, i64(0), i32(0), i32(ATTRIBUTE.unusable));
}
/** Real mode: a load changes selector and base only. */
export function setReal(f: Func, place: Operand, selector: Expr): void {
  f.store(64, place, selector.and(0xffff).zext().shl(4), SEGMENT.base);
  f.store(32, place, selector.and(0xffff), SEGMENT.selector);
}
/** Virtual-8086 mode: everything is fixed (SDM 3 21.3.1.2: type 3, DPL 3). */
export function setVirtual(f: Func, place: Operand, selector: Expr): void {
  setReal(f, place, selector);
  f.store(32, place, i32(0xffff), SEGMENT.limit);
  f.store(32, place, i32(0xf3), SEGMENT.attributes);
}
/** Installs a code or data descriptor. */
export function setFromRaw(f: Func, place: Operand, selector: Expr, raw: Expr): void {
  setSegment(f, place, selector, baseOf(raw), limitOf(raw), attributesOf(raw));
}

/** Replaces the flags in `mask`; lazy flags must have been materialized. */
export function setFlags(f: Func, mask: Operand, value: Expr): void {
  const m = typeof mask === "number" ? i32(mask) : mask as Expr;
  f.store(32, i32(0), cell(CPU.rflags).and(m.not()).or(value.and(m)), CPU.rflags);
}

/** Linear addresses of system tables are 32 bits wide outside IA-32e mode. */
export const wrapSystem = (linear: Expr): Expr => linear.when(longMode(), linear.and(0xffff_ffffn));

export function buildDescriptors(m: Module): void {
  // descriptorAddress(selector, bytes) -> linear address, -1 outside of the table or without an LDT.
  m.func("descriptorAddress", ["i32", "i32"], ["i64"], (f, selector, bytes) => {
    const base = f.let(cell64(CPU["gdtr.base"])), limit = f.let(cell(CPU["gdtr.limit"]));
    f.if(selector.and(4), () => {
      f.if(attributesAt(LDTR).and(ATTRIBUTE.unusable), () => f.return(i64(-1)));
      f.set(base, baseAt(LDTR));
      f.set(limit, limitAt(LDTR));
    });
    const offset = f.let(selector.and(0xfff8));
    f.if(offset.add(bytes).sub(1).gtU(limit), () => f.return(i64(-1)));
    f.result(wrapSystem(base.add(offset.zext())));
  });
  // descriptorOf(selector, vector) -> the 8 bytes; `vector` (selector) outside of the table.
  m.func("descriptorOf", ["i32", "i32"], ["i64"], (f, selector, vector) => {
    const at = f.call("descriptorAddress", selector, i32(8));
    failWith(f, at.eq(-1), vector, selectorError(selector), CHECK.table, selector);
    setCell64(f, LINK.descriptorAt, at);
    f.result(f.call("ld64", at, cell(V.accessSystem)));
  });
  // The upper 8 bytes of the descriptor read last: system descriptors in IA-32e mode.
  m.func("upperDescriptor", ["i32", "i32"], ["i64"], (f, selector, vector) => {
    const at = f.call("descriptorAddress", selector, i32(16));
    failWith(f, at.eq(-1), vector, selectorError(selector), CHECK.table, selector);
    f.result(f.call("ld64", wrapSystem(at.add(8)), cell(V.accessSystem)));
  });
  // markAccessed(raw) -> raw with the accessed bit, set in memory too if it was not.
  m.func("markAccessed", ["i64"], ["i64"], (f, raw) => {
    f.if(raw.and(1n << 40n).eqz(), () => {
      const at = wrapSystem(cell64(LINK.descriptorAt).add(5));
      f.call("st8", at, cell(V.accessSystem), raw.shrU(40).wrap().or(1));
    });
    f.result(raw.or(1n << 40n));
  });
}
