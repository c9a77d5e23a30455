/** Loads of data and stack segment registers, LDTR and TR (SDM 3 5.6, 5.7; SDM 2 MOV, LLDT, LTR). */
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU, SEGMENT, SEGMENT_SIZE, V } from "../../state.ts";
import { cell, setCell } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import {
  ATTRIBUTE,
  attributesOf,
  baseOf,
  callChecked,
  dplOf,
  ES,
  ext,
  failIf,
  failWith,
  isNull,
  isWritable,
  LDTR,
  leaveIfAborted,
  limitOf,
  LINK,
  selectorError,
  setFromRaw,
  setNull,
  setReal,
  setSegment,
  setVirtual,
  SS,
  TR,
  wrapSystem,
} from "./descriptor.ts";
import { is64, isCanonical, longMode, protectedMode, virtual8086 } from "../../mode.ts";

const CHECK = {
  base: check("system.base", "selector {a}: the base {b} is not canonical", "SDM 2 LTR"),
  upper: check("system.upper", "selector {a}: the upper half has type {b}, not 0", "SDM 2 LTR"),
  nullStack: check("ss.null", "a null selector {a} cannot be loaded into SS", "SDM 3 5.7"),
  stackType: check(
    "ss.type",
    "SS: selector {a}, the descriptor (attributes {b}) is not a writable data segment",
    "SDM 3 5.7",
  ),
  stackPrivilege: check(
    "ss.privilege",
    "SS: selector {a}: its RPL and the DPL of attributes {b} must equal the privilege level",
    "SDM 3 5.7",
  ),
  stackPresent: check("ss.present", "SS: selector {a}, the segment is not present", "SDM 3 5.7"),
  dataType: check(
    "segment.type",
    "selector {a}: the descriptor (attributes {b}) is neither data nor readable code",
    "SDM 3 5.6",
  ),
  dataPrivilege: check(
    "segment.privilege",
    "selector {a}: descriptor DPL (attributes {b}) below CPL or RPL",
    "SDM 3 5.6",
  ),
  dataPresent: check("segment.present", "selector {a}: the segment is not present", "SDM 3 5.6"),
  local: check(
    "system.local",
    "selector {a} is in the LDT; the GDT was expected",
    "SDM 2 LLDT, LTR",
  ),
  nullTask: check("tr.null", "LTR with a null selector", "SDM 2 LTR"),
  ldtType: check("ldt.type", "selector {a}: attributes {b} are not an LDT's", "SDM 2 LLDT"),
  taskType: check(
    "tr.type",
    "selector {a}: attributes {b} are not an available TSS's",
    "SDM 2 LTR",
  ),
  systemPresent: check("system.present", "selector {a}: the descriptor is not present", "SDM 2"),
};

/** SS in 64-bit mode below privilege 3: a null selector whose RPL is the privilege level. */
function nullStackSegment(f: Func, selector: Expr, cpl: Expr): void {
  setSegment(f, SS, selector, i64(0), i32(0), cpl.shl(5).or(ATTRIBUTE.unusable));
}

/**
 * `stackDescriptor(selector, level, vector) -> raw`: checks of a stack segment for privilege `level`;
 * `vector` is #GP for loads and returns, #TS for stacks from a task state. #SS if not present.
 */
function buildStackDescriptor(m: Module): void {
  m.func("stackDescriptor", ["i32", "i32", "i32"], ["i64"], (f, selector, level, vector) => {
    failWith(f, isNull(selector), vector, ext(), CHECK.nullStack, selector);
    const code = f.let(selectorError(selector));
    const raw = callChecked(f, "descriptorOf", selector, vector);
    const attributes = f.let(attributesOf(raw));
    const privilege = selector.and(3).ne(level).or(dplOf(attributes).ne(level));
    failWith(f, isWritable(attributes).eqz(), vector, code, CHECK.stackType, selector, attributes);
    failWith(f, privilege, vector, code, CHECK.stackPrivilege, selector, attributes);
    failIf(
      f,
      attributes.and(ATTRIBUTE.present).eqz(),
      VECTOR.SS,
      code,
      CHECK.stackPresent,
      selector,
    );
    f.result(f.call("markAccessed", raw));
  });
}

function buildDataDescriptor(m: Module): void {
  // dataDescriptor(selector, level, vector) -> raw, for ES, DS, FS, GS; not null.
  m.func("dataDescriptor", ["i32", "i32", "i32"], ["i64"], (f, selector, level, vector) => {
    const code = f.let(selectorError(selector));
    const raw = callChecked(f, "descriptorOf", selector, vector);
    const attributes = f.let(attributesOf(raw));
    const readable = attributes.and(ATTRIBUTE.system).nez().and(
      attributes.and(0xa).ne(8),
    );
    failWith(f, readable.eqz(), vector, code, CHECK.dataType, selector, attributes);
    const conforming = attributes.and(0x1c).eq(0x1c);
    const dpl = f.let(dplOf(attributes));
    const below = dpl.ltU(level).or(dpl.ltU(selector.and(3)));
    failWith(
      f,
      conforming.eqz().and(below),
      vector,
      code,
      CHECK.dataPrivilege,
      selector,
      attributes,
    );
    failIf(
      f,
      attributes.and(ATTRIBUTE.present).eqz(),
      VECTOR.NP,
      code,
      CHECK.dataPresent,
      selector,
    );
    f.result(f.call("markAccessed", raw));
  });
}

function buildLoadSegment(m: Module): void {
  // loadSegment(index, selector): MOV, POP and LxS of ES (0), SS (2), DS, FS, GS.
  m.func("loadSegment", ["i32", "i32"], [], (f, index, selector) => {
    const place = f.let(index.mul(SEGMENT_SIZE).add(ES));
    f.if(protectedMode().eqz(), () => {
      setReal(f, place, selector);
      f.return();
    });
    f.if(virtual8086(), () => {
      setVirtual(f, place, selector);
      f.return();
    });
    const cpl = f.let(cell(V.cpl));
    f.if(index.eq(2), () => {
      f.if(isNull(selector).and(is64()).and(cpl.ne(3)).and(selector.and(3).eq(cpl)), () => {
        nullStackSegment(f, selector, cpl);
        f.return();
      });
      const raw = callChecked(f, "stackDescriptor", selector, cpl, i32(VECTOR.GP));
      setFromRaw(f, place, selector, raw);
      f.return();
    });
    f.if(isNull(selector), () => {
      setNull(f, place, selector);
      f.return();
    });
    const raw = callChecked(f, "dataDescriptor", selector, cpl, i32(VECTOR.GP));
    setFromRaw(f, place, selector, raw);
  });
  // segmentsChange(index, selector) -> 1 if the cached descriptor of that register differs after.
  m.func("reloadSegment", ["i32", "i32"], ["i32"], (f, index, selector) => {
    const place = f.let(index.mul(SEGMENT_SIZE).add(ES));
    const word = (at: number) => f.let(loadPlace64(place, at));
    const base = word(SEGMENT.base), rest = word(SEGMENT.limit);
    f.call("loadSegment", index, selector);
    f.result(
      loadPlace64(place, SEGMENT.base).ne(base).or(loadPlace64(place, SEGMENT.limit).ne(rest)),
    );
  });
}

const loadPlace64 = (place: Local, at: number): Expr => load("i64", 64, "u", place, at);

/** Base of a system descriptor, with its upper half in IA-32e mode. */
function systemBase(f: Func, raw: Expr, selector: Expr, upperType: number): Local {
  const base = f.let(baseOf(raw));
  f.if(longMode(), () => {
    const upper = callChecked(f, "upperDescriptor", selector, i32(VECTOR.GP));
    f.set(base, base.and(0xffff_ffffn).or(upper.shl(32)));
    const code = f.let(selectorError(selector));
    const type = upper.shrU(40).wrap().and(upperType);
    failIf(f, type.nez(), VECTOR.GP, code, CHECK.upper, selector, type);
    failIf(f, isCanonical(base).eqz(), VECTOR.GP, code, CHECK.base, selector, base);
  });
  return base;
}

function buildSystemLoads(m: Module): void {
  // loadLdt(selector, vector): #GP for LLDT, #TS in a task switch.
  m.func("loadLdt", ["i32", "i32"], [], (f, selector, vector) => {
    f.if(isNull(selector), () => {
      setNull(f, LDTR, selector);
      f.return();
    });
    const code = f.let(selectorError(selector));
    failWith(f, selector.and(4).nez(), vector, code, CHECK.local, selector);
    const raw = callChecked(f, "descriptorOf", selector, vector);
    const attributes = f.let(attributesOf(raw));
    failWith(f, attributes.and(0x1f).ne(2), vector, code, CHECK.ldtType, selector, attributes);
    // A task switch gives #TS for an LDT that is not present (SDM 3 table 8-1).
    const absent = i32(11).when(vector.eq(VECTOR.GP), vector);
    const present = attributes.and(ATTRIBUTE.present);
    failWith(f, present.eqz(), f.let(absent), code, CHECK.systemPresent, selector);
    const base = systemBase(f, raw, selector, 0);
    setSegment(f, LDTR, selector, base, limitOf(raw), attributes);
  });
  m.func("loadTask", ["i32"], [], (f, selector) => {
    failIf(f, isNull(selector), VECTOR.GP, 0, CHECK.nullTask, selector);
    const code = f.let(selectorError(selector));
    failIf(f, selector.and(4).nez(), VECTOR.GP, code, CHECK.local, selector);
    const raw = callChecked(f, "descriptorOf", selector, i32(VECTOR.GP));
    const attributes = f.let(attributesOf(raw));
    const type = attributes.and(0x1f);
    const available = type.eq(9).or(type.eq(1).and(longMode().eqz()));
    failIf(f, available.eqz(), VECTOR.GP, code, CHECK.taskType, selector, attributes);
    const present = attributes.and(ATTRIBUTE.present);
    failIf(f, present.eqz(), VECTOR.NP, code, CHECK.systemPresent, selector);
    const at = f.let(wrapSystem(load("i64", 64, "u", i32(0), LINK.descriptorAt).add(5)));
    const base = systemBase(f, raw, selector, 0x1f);
    f.call("st8", at, cell(V.accessSystem), attributes.or(2));
    leaveIfAborted(f);
    setSegment(f, TR, selector, base, limitOf(raw), attributes.or(2));
  });
}

/** `pushSelector(selector)`: a 32-bit push that writes the low word only (SDM 2 PUSH). */
function buildPushSelector(m: Module): void {
  m.func("pushSelector", ["i32"], [], (f, selector) => {
    const stack = f.let(load("i64", 64, "u", i32(0), CPU.rsp));
    f.call("addToStack", i32(-2));
    f.call("push16", selector);
    f.if(cell(V.abort), () => f.store(64, i32(0), stack, CPU.rsp));
  });
}

function buildInnerStack(m: Module): void {
  const short = check(
    "tss.limit",
    "the task state of TR has no stack for that privilege: offset {a}, limit {b}",
    "SDM 3 6.12.1",
  );
  // innerStack(level): SS and ESP for that privilege level from the current task state.
  m.func("innerStack", ["i32"], [], (f, level) => {
    const wide = f.let(load("i32", 32, "u", i32(0), TR + SEGMENT.attributes).and(8));
    const offset = f.let(level.shl(3).add(4).when(wide, level.shl(2).add(2)));
    const limit = f.let(load("i32", 32, "u", i32(0), TR + SEGMENT.limit));
    const last = offset.add(i32(5).when(wide, i32(3)));
    const selector = f.let(load("i32", 32, "u", i32(0), TR + SEGMENT.selector));
    failIf(f, last.gtU(limit), VECTOR.TS, selectorError(selector), short, offset, limit);
    const at = f.let(load("i64", 64, "u", i32(0), TR + SEGMENT.base).add(offset.zext()));
    const read = (name: string, skip: number) =>
      callChecked(f, name, wrapSystem(at.add(skip)), cell(V.accessSystem));
    f.if(wide, () => {
      f.store(64, i32(0), read("ld32", 0).zext(), LINK.stackPointer);
      setCell(f, LINK.stackSelector, read("ld16", 4));
    }, () => {
      f.store(64, i32(0), read("ld16", 0).zext(), LINK.stackPointer);
      setCell(f, LINK.stackSelector, read("ld16", 2));
    });
  });
  // enterStack(selector, raw, pointer): SS and RSP change; leaveStack() takes it back.
  m.func("enterStack", ["i32", "i64", "i64"], [], (f, selector, raw, pointer) => {
    f.copy(LINK.savedStack, SS, SEGMENT_SIZE, 0);
    f.store(64, i32(0), load("i64", 64, "u", i32(0), CPU.rsp), LINK.savedPointer);
    setFromRaw(f, SS, selector, raw);
    // A 16-bit stack leaves the upper half of ESP as it is.
    const old = load("i64", 64, "u", i32(0), CPU.rsp);
    const big = raw.and(1n << 54n).nez();
    f.store(64, i32(0), pointer.when(big, old.and(0xffff_0000n).or(pointer.and(0xffff))), CPU.rsp);
    f.call("refresh");
  });
  m.func("leaveStack", [], [], (f) => {
    f.copy(SS, LINK.savedStack, SEGMENT_SIZE, 0);
    f.store(64, i32(0), load("i64", 64, "u", i32(0), LINK.savedPointer), CPU.rsp);
    f.call("refresh");
  });
}

export function buildSegmentLoads(m: Module): void {
  buildStackDescriptor(m);
  buildDataDescriptor(m);
  buildLoadSegment(m);
  buildSystemLoads(m);
  buildInnerStack(m);
  buildPushSelector(m);
}
