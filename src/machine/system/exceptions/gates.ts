/** Interrupt, trap and task gates: protected mode (SDM 3 6.12, 20.3) and IA-32e mode (6.14). */
import { EVENT_TYPE, VECTOR } from "../../../abi/x86/vectors.ts";
import { ABORT, ACCESS, CPU, V } from "../../state.ts";
import { cell, cell64, setCell, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import {
  ATTRIBUTE,
  attributesOf,
  baseAt,
  callChecked,
  CS,
  dplOf,
  DS,
  ES,
  ext,
  failIf,
  FS,
  GS,
  isCode,
  isNull,
  leave,
  leaveIfAborted,
  limitAt,
  limitOf,
  LINK,
  selectorAt,
  selectorError,
  setFlags,
  setFromRaw,
  setNull,
  setSegment,
  SS,
  TR,
  wrapSystem,
} from "../segmentation/descriptor.ts";
import { TASK_SOURCE } from "../segmentation/tasks.ts";
import { isCanonical } from "../../mode.ts";
import { RFLAGS } from "../../../abi/x86/cr.ts";

const CHECK = {
  limit: check(
    "idt.limit",
    "vector {a}: its entry is outside the IDT with limit {b}",
    "SDM 3 6.10",
  ),
  type: check("idt.type", "vector {a}: type {b} is no interrupt, trap or task gate", "SDM 3 6.11"),
  privilege: check(
    "idt.privilege",
    "vector {a}: gate DPL below CPL {b} for a software interrupt",
    "SDM 3 6.12.1.1",
  ),
  present: check("idt.present", "vector {a}: the gate is not present", "SDM 3 6.12"),
  nullCode: check("gate.null", "the gate's code selector {a} is null", "SDM 3 6.12"),
  codeType: check(
    "gate.code",
    "selector {a}: attributes {b} are not a code segment's that may be entered here",
    "SDM 3 6.12",
  ),
  codePrivilege: check(
    "gate.dpl",
    "selector {a}: the code segment's DPL (attributes {b}) is above CPL",
    "SDM 3 6.12.1.1",
  ),
  codePresent: check(
    "gate.codePresent",
    "selector {a}: the code segment is not present",
    "SDM 3 6.12",
  ),
  virtual: check(
    "gate.virtual",
    "selector {a}: a handler for virtual-8086 mode must run at privilege 0, attributes {b}",
    "SDM 3 20.3.1",
  ),
  ip: check(
    "gate.ip",
    "the handler's address {a} is outside its code segment with limit {b}",
    "SDM 3 6.12",
  ),
  canonical: check("gate.canonical", "the handler's address {a} is not canonical", "SDM 3 6.14.1"),
  stack: check("gate.stack", "the handler's stack {a} is not canonical", "SDM 3 6.14.2"),
  tss: check(
    "tss.limit",
    "the task state of TR has no stack for that privilege: offset {a}, limit {b}",
    "SDM 3 6.12.1",
  ),
};

/** Reads the gate at the vector's entry and checks what all kinds share. */
function readGate(f: Func, vector: Local, type: Local, size: 8 | 16): Local {
  const code = f.let(vector.shl(3).or(2).or(ext()));
  const limit = f.let(cell(CPU["idtr.limit"]));
  failIf(f, vector.mul(size).add(size - 1).gtU(limit), VECTOR.GP, code, CHECK.limit, vector, limit);
  const at = wrapSystem(cell64(CPU["idtr.base"]).add(vector.mul(size).zext()));
  const gate = callChecked(f, "ld64", at, cell(V.accessSystem));
  const kind = f.let(gate.shrU(40).wrap().and(0x1f));
  // Interrupt and trap gates: 14, 15, and the 16-bit ones 6, 7 and task gates outside IA-32e mode.
  const known = size === 16 ? kind.and(0x1e).eq(14) : kind.and(0x16).eq(6).or(kind.eq(5));
  failIf(f, known.eqz(), VECTOR.GP, code, CHECK.type, vector, kind);
  const software = type.eq(EVENT_TYPE.softwareInterrupt).or(type.eq(EVENT_TYPE.softwareException));
  const cpl = f.let(cell(V.cpl));
  const dpl = gate.shrU(45).wrap().and(3);
  failIf(f, software.and(dpl.ltU(cpl)), VECTOR.GP, code, CHECK.privilege, vector, cpl);
  failIf(f, gate.and(1n << 47n).eqz(), VECTOR.NP, code, CHECK.present, vector);
  return gate;
}

/** The code segment of a gate, checked up to its privilege: raw descriptor. */
function readTarget(f: Func, selector: Local, cpl: Local): { raw: Local; attributes: Local } {
  failIf(f, isNull(selector), VECTOR.GP, ext(), CHECK.nullCode, selector);
  const code = f.let(selectorError(selector));
  const raw = callChecked(f, "descriptorOf", selector, i32(VECTOR.GP));
  const attributes = f.let(attributesOf(raw));
  failIf(f, isCode(attributes).eqz(), VECTOR.GP, code, CHECK.codeType, selector, attributes);
  const above = dplOf(attributes).gtU(cpl);
  failIf(f, above, VECTOR.GP, code, CHECK.codePrivilege, selector, attributes);
  return { raw, attributes };
}

function checkPresent(f: Func, selector: Local, attributes: Local): void {
  const absent = attributes.and(ATTRIBUTE.present).eqz();
  failIf(f, absent, VECTOR.NP, selectorError(selector), CHECK.codePresent, selector);
}

/** Privilege a code segment runs at when it is entered from `cpl`. */
const newLevel = (attributes: Expr, cpl: Expr): Expr =>
  cpl.when(attributes.and(4), dplOf(attributes));

const highOffset = (gate: Expr): Expr => gate.shrU(32).and(0xffff_0000n).or(gate.and(0xffff));

/** Loads CS from a descriptor, and the flags and RIP of a handler. */
function enterHandler(
  f: Func,
  selector: Local,
  level: Expr,
  raw: Local,
  ip: Expr,
  gate: Local,
): void {
  setFromRaw(f, CS, f.let(selector.and(0xfffc).or(level)), raw);
  setCell64(f, CPU.rip, ip);
  const clear = RFLAGS.TF | RFLAGS.NT | RFLAGS.RF | RFLAGS.VM;
  // Interrupt gates have an even type.
  f.if(gate.and(1n << 40n).eqz(), () => setFlags(f, clear | RFLAGS.IF, i32(0)), () => {
    setFlags(f, clear, i32(0));
  });
}

function buildTaskGate(m: Module): void {
  const local = check("task.local", "task gate: selector {a} must be in the GDT", "SDM 3 7.2.5");
  const type = check(
    "task.type",
    "selector {a}: attributes {b} are not an available TSS's",
    "SDM 3 7.3",
  );
  const present = check("task.present", "selector {a}: the TSS is not present", "SDM 3 7.3");
  // taskGate(selector, flags image, return EIP, source, has error): through a task gate.
  m.func(
    "taskGate",
    ["i32", "i32", "i64", "i32", "i32"],
    [],
    (f, selector, flags, ip, source, hasError) => {
      const code = f.let(selectorError(selector));
      failIf(f, selector.and(4).nez().or(isNull(selector)), VECTOR.GP, code, local, selector);
      const raw = callChecked(f, "descriptorOf", selector, i32(VECTOR.GP));
      const attributes = f.let(attributesOf(raw));
      failIf(f, attributes.and(0x17).ne(1), VECTOR.GP, code, type, selector, attributes);
      failIf(f, attributes.and(ATTRIBUTE.present).eqz(), VECTOR.NP, code, present, selector);
      f.call("switchTask", selector, raw, flags, ip, source);
      leaveIfAborted(f);
      f.if(hasError, () => {
        // Pushed on the new task's stack in the width of its TSS.
        const value = f.let(cell(V.errorCode));
        f.if(attributes.and(8), () => f.call("push32", value), () => f.call("push16", value));
        leaveIfAborted(f);
      });
    },
  );
}

/** What call gates need too. */
export function buildGateHelpers(m: Module): void {
  buildTaskGate(m);
  buildLongStack(m);
  // pushGate(value, wide): a word or doubleword, nothing more once a push has failed.
  m.func("pushGate", ["i32", "i32"], [], (f, value, wide) => {
    f.if(cell(V.abort), () => f.return());
    f.if(wide, () => f.call("push32", value), () => f.call("push16", value));
  });
  // The descriptor address may have been that of a stack segment meanwhile.
  m.func("markAccessedAt", ["i32", "i64"], ["i64"], (f, selector, raw) => {
    f.if(raw.and(1n << 40n).nez(), () => f.return(raw));
    setCell64(f, LINK.descriptorAt, f.call("descriptorAddress", selector, i32(8)));
    f.result(f.call("markAccessed", raw));
  });
  m.func("accessOfLevel", ["i32"], ["i32"], (f, level) => f.result(accessAt(level)));
}

function buildDeliverProtected(m: Module): void {
  m.func("deliverProtected", ["i32", "i32", "i32", "i64"], [], (f, vector, type, flags, ip) => {
    const hasError = f.let(cell(V.hasError)), errorCode = f.let(cell(V.errorCode));
    const gate = readGate(f, vector, type, 8);
    const selector = f.let(gate.shrU(16).wrap().and(0xffff));
    const kind = f.let(gate.shrU(40).wrap().and(0x1f));
    f.if(kind.eq(5), () => {
      f.call("taskGate", selector, flags, ip, i32(TASK_SOURCE.gate), hasError);
      f.return();
    });
    const wide = f.let(kind.shrU(3));
    const target = f.let(highOffset(gate).when(wide, gate.and(0xffff)));
    const cpl = f.let(cell(V.cpl));
    const { raw, attributes } = readTarget(f, selector, cpl);
    const level = f.let(newLevel(attributes, cpl));
    const virtual = f.let(flags.and(RFLAGS.VM));
    const code = selectorError(selector);
    failIf(f, virtual.nez().and(level.nez()), VECTOR.GP, code, CHECK.virtual, selector, attributes);
    checkPresent(f, selector, attributes);
    const inner = f.let(level.ltU(cpl));
    const oldStack = f.let(cell64(CPU.rsp)), oldSelector = f.let(selectorAt(SS));
    const stackRaw = f.local("i64");
    f.if(inner, () => {
      callChecked(f, "innerStack", level);
      f.set(
        stackRaw,
        callChecked(f, "stackDescriptor", cell(LINK.stackSelector), level, i32(VECTOR.TS)),
      );
    });
    const limit = f.let(limitOf(raw));
    failIf(f, target.gtU(limit.zext()), VECTOR.GP, ext(), CHECK.ip, target, limit);
    f.set(raw, callChecked(f, "markAccessedAt", selector, raw));
    const push = (value: Expr) => f.call("pushGate", value, wide);
    f.if(inner, () => {
      f.call("enterStack", cell(LINK.stackSelector), stackRaw, cell64(LINK.stackPointer));
      f.if(virtual, () => {
        for (const place of [GS, FS, DS, ES]) push(selectorAt(place));
      });
      push(oldSelector);
      push(oldStack.wrap());
    });
    push(flags);
    push(selectorAt(CS));
    push(ip.wrap());
    f.if(hasError, () => push(errorCode));
    f.if(cell(V.abort), () => {
      f.if(cell(V.abort).eq(ABORT.fault).and(cell(V.vector).eq(VECTOR.SS)), () => {
        setCell(f, V.errorCode, ext().or(cell(LINK.stackSelector).and(0xfffc).when(inner, 0)));
      });
      f.if(inner, () => f.call("leaveStack"), () => setCell64(f, CPU.rsp, oldStack));
      leave(f);
    });
    f.if(virtual, () => {
      for (const place of [GS, FS, DS, ES]) setNull(f, place);
    });
    enterHandler(f, selector, level, raw, target, gate);
  });
}

/** Access class of the explicit accesses of code at `level`. */
function accessAt(level: Expr): Expr {
  const smap = cell(V.accessSystem).when(cell(CPU.rflags).and(RFLAGS.AC).eqz(), i32(0));
  return i32(ACCESS.user).when(level.eq(3), smap);
}

function buildLongStack(m: Module): void {
  // longStack(offset) -> a stack pointer from the 64-bit task state.
  m.func("longStack", ["i32"], ["i64"], (f, offset) => {
    const limit = f.let(limitAt(TR));
    const code = selectorError(selectorAt(TR));
    failIf(f, offset.add(7).gtU(limit), VECTOR.TS, code, CHECK.tss, offset, limit);
    const at = baseAt(TR).add(offset.zext());
    f.result(f.call("ld64", at, cell(V.accessSystem)));
  });
}

function buildDeliverLong(m: Module): void {
  m.func("deliverLong", ["i32", "i32", "i32", "i64"], [], (f, vector, type, flags, ip) => {
    const hasError = f.let(cell(V.hasError)), errorCode = f.let(cell(V.errorCode));
    const gate = readGate(f, vector, type, 16);
    const upperAt = cell64(CPU["idtr.base"]).add(vector.shl(4).zext()).add(8);
    const upper = callChecked(f, "ld64", upperAt, cell(V.accessSystem));
    const target = f.let(highOffset(gate).or(upper.shl(32)));
    const selector = f.let(gate.shrU(16).wrap().and(0xffff));
    const cpl = f.let(cell(V.cpl));
    const { raw, attributes } = readTarget(f, selector, cpl);
    const is64 = attributes.and(ATTRIBUTE.long | ATTRIBUTE.big).eq(ATTRIBUTE.long);
    const code = selectorError(selector);
    failIf(f, is64.eqz(), VECTOR.GP, code, CHECK.codeType, selector, attributes);
    checkPresent(f, selector, attributes);
    const level = f.let(newLevel(attributes, cpl));
    const inner = f.let(level.ltU(cpl));
    const ist = f.let(gate.shrU(32).wrap().and(7));
    const stack = f.let(cell64(CPU.rsp));
    f.if(ist, () => f.set(stack, callChecked(f, "longStack", ist.shl(3).add(28))), () => {
      f.if(inner, () => f.set(stack, callChecked(f, "longStack", level.shl(3).add(4))));
    });
    failIf(f, isCanonical(target).eqz(), VECTOR.GP, ext(), CHECK.canonical, target);
    f.set(stack, stack.and(-16n));
    const edge = isCanonical(stack.sub(1)).and(isCanonical(stack.sub(48)));
    failIf(f, edge.eqz(), VECTOR.SS, ext(), CHECK.stack, stack);
    f.set(raw, callChecked(f, "markAccessedAt", selector, raw));
    const access = f.let(accessAt(level));
    const frame = [
      selectorAt(SS).zext(),
      cell64(CPU.rsp),
      flags.zext(),
      selectorAt(CS).zext(),
      ip,
    ];
    f.if(hasError, () => {
      callChecked(f, "st64", stack.sub(48), access, errorCode.zext());
    });
    frame.forEach((value, i) => {
      callChecked(f, "st64", stack.sub(8 * (i + 1)), access, value);
    });
    setCell64(f, CPU.rsp, stack.sub(i64(48).when(hasError, i64(40))));
    f.if(inner, () => {
      setSegment(f, SS, level, i64(0), i32(0), level.shl(5).or(ATTRIBUTE.unusable));
    });
    enterHandler(f, selector, level, raw, target, gate);
  });
}

export function buildGates(m: Module): void {
  buildDeliverProtected(m);
  buildDeliverLong(m);
}
