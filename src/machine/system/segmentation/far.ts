/** Far jumps, calls and returns in protected and IA-32e mode (SDM 3 5.8; SDM 2 JMP, CALL, RET). */
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU, SEGMENT, V } from "../../state.ts";
import { ABORT } from "../../state.ts";
import { cell, cell64, setCell, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import { asAmd } from "../../vendors.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import {
  ATTRIBUTE,
  attributesAt,
  attributesOf,
  callChecked,
  CS,
  dplOf,
  DS,
  ES,
  failIf,
  FS,
  GS,
  isCode,
  isNull,
  leave,
  limitAt,
  limitOf,
  LINK,
  selectorAt,
  selectorError,
  setFromRaw,
  setReal,
  setSegment,
  SS,
} from "./descriptor.ts";
import { TASK_SOURCE } from "./tasks.ts";
import { isCanonical, longMode, protectedMode, virtual8086 } from "../../mode.ts";

const CHECK = {
  null: check("far.null", "far transfer to a null selector {a}", "SDM 2 JMP"),
  type: check(
    "far.type",
    "far transfer: selector {a}, attributes {b} are neither code nor a gate",
    "SDM 2 JMP",
  ),
  privilege: check(
    "far.privilege",
    "far transfer: selector {a}, attributes {b}: privilege does not allow it",
    "SDM 3 5.8.1",
  ),
  present: check(
    "far.present",
    "far transfer: selector {a}, the segment is not present",
    "SDM 2 JMP",
  ),
  mode: check(
    "far.mode",
    "far transfer: selector {a}, attributes {b} have both L and D set",
    "SDM 2 JMP",
  ),
  limit: check(
    "far.limit",
    "far transfer: target {a} is outside the code segment with limit {b}",
    "SDM 2 JMP",
  ),
  canonical: check("far.canonical", "far transfer: target {a} is not canonical", "SDM 2 JMP"),
  gatePrivilege: check(
    "gate.privilege",
    "gate {a}: DPL of attributes {b} below CPL or RPL",
    "SDM 3 5.8.4",
  ),
  gatePresent: check("gate.absent", "gate {a} is not present", "SDM 3 5.8.4"),
  gateCode: check(
    "callgate.code",
    "call gate: code selector {a}, attributes {b} cannot be entered",
    "SDM 3 5.8.4",
  ),
  gateType: check(
    "callgate.upper",
    "call gate {a}: the type field of its upper half is not 0",
    "SDM 3 5.8.3.1",
  ),
  taskPrivilege: check(
    "task.privilege",
    "TSS {a}: DPL of attributes {b} below CPL or RPL",
    "SDM 3 7.3",
  ),
  taskBusy: check("task.busy", "TSS {a}: attributes {b} say it is busy", "SDM 3 7.3"),
  taskPresent: check("task.present", "selector {a}: the TSS is not present", "SDM 3 7.3"),
  returnLevel: check(
    "return.level",
    "return to selector {a} with attributes {b}: RPL and DPL do not allow it",
    "SDM 2 RET",
  ),
  returnStack: check(
    "return.stack",
    "return to an outer level with the null stack selector {a}",
    "SDM 2 RET",
  ),
};

/** #GP(0) unless `ip` lies in a code segment of these attributes and limit; `undo` comes before. */
function checkTarget(
  f: Func,
  ip: Expr,
  attributes: Expr,
  limit: Expr,
  undo?: () => void,
): void {
  const fail = (condition: Expr, id: number, b?: Expr) =>
    f.if(condition, () => {
      undo?.();
      failIf(f, i32(1), VECTOR.GP, 0, id, ip, b);
    });
  f.if(
    longMode().and(attributes.shrU(13)).and(1),
    () => fail(isCanonical(ip).eqz(), CHECK.canonical),
    () => fail(ip.gtU(limit.zext()), CHECK.limit, limit),
  );
}

function checkMode(f: Func, selector: Local, attributes: Local): void {
  const both = attributes.and(ATTRIBUTE.long | ATTRIBUTE.big).eq(ATTRIBUTE.long | ATTRIBUTE.big);
  failIf(
    f,
    longMode().and(both),
    VECTOR.GP,
    selectorError(selector),
    CHECK.mode,
    selector,
    attributes,
  );
}

/** `farReal(selector, ip)`: JMP and CALL outside of protected mode, the pushes done. */
function setRealTarget(f: Func, selector: Local, ip: Local): void {
  // In virtual-8086 mode limit and attributes are those of that mode already.
  setReal(f, CS, selector);
  setCell64(f, CPU.rip, ip);
}

/** Kinds of far transfer. */
export const FAR = { jump: 0, call: 1, callIndirect: 2 } as const;

/**
 * `farTransfer(selector, ip, kind, bits, return ip)`: kind of FAR. With LINK.taskSwitched set,
 * V.abort is a fault of the new task.
 */
function buildFarTransfer(m: Module): void {
  const params = ["i32", "i64", "i32", "i32", "i64"] as const;
  m.func("farTransfer", params, [], (f, selector, ip, kind, bits, back) => {
    const isCall = f.let(kind.nez());
    setCell(f, LINK.taskSwitched, 0);
    f.call("materialize");
    f.if(protectedMode().eqz().or(virtual8086()), () => {
      const limit = f.let(limitAt(CS));
      failIf(f, ip.gtU(limit.zext()), VECTOR.GP, 0, CHECK.limit, ip, limit);
      f.if(isCall, () => callChecked(f, "pushFar", selectorAt(CS), back, bits));
      setRealTarget(f, selector, ip);
      f.return();
    });
    failIf(f, isNull(selector), VECTOR.GP, 0, CHECK.null, selector);
    const raw = callChecked(f, "descriptorOf", selector, i32(VECTOR.GP));
    const attributes = f.let(attributesOf(raw));
    const code = f.let(selectorError(selector));
    f.if(attributes.and(ATTRIBUTE.system), () => {
      failIf(f, isCode(attributes).eqz(), VECTOR.GP, code, CHECK.type, selector, attributes);
      const cpl = f.let(cell(V.cpl)), dpl = dplOf(attributes);
      const allowed = dpl.leU(cpl).when(
        attributes.and(4),
        dpl.eq(cpl).and(selector.and(3).leU(cpl)),
      );
      failIf(f, allowed.eqz(), VECTOR.GP, code, CHECK.privilege, selector, attributes);
      const absent = attributes.and(ATTRIBUTE.present).eqz();
      failIf(f, absent, VECTOR.NP, code, CHECK.present, selector);
      checkMode(f, selector, attributes);
      const push = () => callChecked(f, "pushFar", selectorAt(CS), back, bits);
      const early = f.let(kind.eq(FAR.callIndirect).or(isCall.and(asAmd("far.call-check"))));
      const stack = f.let(cell64(CPU.rsp));
      f.if(early, push);
      checkTarget(f, ip, attributes, f.let(limitOf(raw)), () => setCell64(f, CPU.rsp, stack));
      f.set(raw, callChecked(f, "markAccessed", raw));
      f.if(isCall.and(early.eqz()), push);
      setFromRaw(f, CS, selector.and(0xfffc).or(cpl), raw);
      setCell64(f, CPU.rip, ip);
      f.return();
    });
    f.call("farSystem", selector, raw, isCall, back);
  });
  // pushFar(selector, ip, bits): both or nothing.
  m.func("pushFar", ["i32", "i64", "i32"], [], (f, selector, ip, bits) => {
    const stack = f.let(cell64(CPU.rsp));
    for (const width of [16, 32, 64] as const) {
      f.if(bits.eq(width), () => {
        f.call(`push${width}`, width === 64 ? selector.zext() : selector);
        f.if(cell(V.abort).eqz(), () => f.call(`push${width}`, width === 64 ? ip : ip.wrap()));
      });
    }
    f.if(cell(V.abort), () => setCell64(f, CPU.rsp, stack));
  });
}

/** Gates and task states as targets. */
function buildFarSystem(m: Module): void {
  m.func("farSystem", ["i32", "i64", "i32", "i64"], [], (f, selector, raw, isCall, back) => {
    const attributes = f.let(attributesOf(raw));
    const type = f.let(attributes.and(0xf)), long = f.let(longMode());
    const code = f.let(selectorError(selector));
    const callGate = f.let(type.eq(12).or(type.eq(4).and(long.eqz())));
    const task = f.let(type.and(5).eq(1).and(long.eqz())), taskGate = type.eq(5).and(long.eqz());
    const known = callGate.or(task).or(f.let(taskGate));
    failIf(f, known.eqz(), VECTOR.GP, code, CHECK.type, selector, attributes);
    const cpl = f.let(cell(V.cpl)), dpl = f.let(dplOf(attributes));
    const above = dpl.ltU(cpl).or(dpl.ltU(selector.and(3)));
    const absent = attributes.and(ATTRIBUTE.present).eqz();
    const source = i32(TASK_SOURCE.call).when(isCall, i32(TASK_SOURCE.jump));
    f.if(task, () => {
      failIf(f, above, VECTOR.GP, code, CHECK.taskPrivilege, selector, attributes);
      // TSS selectors from the LDT are refused (SDM 3 7.3).
      const busy = type.and(2).nez().or(selector.and(4).nez());
      failIf(f, busy, VECTOR.GP, code, CHECK.taskBusy, selector, attributes);
      failIf(f, absent, VECTOR.NP, code, CHECK.taskPresent, selector);
      f.call("switchTask", selector, raw, cell(CPU.rflags), back, source);
      f.return();
    });
    failIf(f, above, VECTOR.GP, code, CHECK.gatePrivilege, selector, attributes);
    failIf(f, absent, VECTOR.NP, code, CHECK.gatePresent, selector);
    const target = f.let(raw.shrU(16).wrap().and(0xffff));
    f.if(type.eq(5), () => {
      f.call("taskGate", target, cell(CPU.rflags), back, source, i32(0));
      f.return();
    });
    f.if(long, () => {
      const upper = callChecked(f, "upperDescriptor", selector, i32(VECTOR.GP));
      failIf(f, upper.and(0x1f00_0000_0000n).nez(), VECTOR.GP, code, CHECK.gateType, selector);
      f.call("callGate64", raw, upper, isCall, back);
    }, () => f.call("callGate", raw, isCall, back));
  });
}

/** The code segment of a call gate: raw, attributes and the privilege it will run at. */
function gateTarget(f: Func, raw: Local, isCall: Local, cpl: Local) {
  const selector = f.let(raw.shrU(16).wrap().and(0xffff));
  failIf(f, isNull(selector), VECTOR.GP, 0, CHECK.null, selector);
  const code = f.let(selectorError(selector));
  const target = callChecked(f, "descriptorOf", selector, i32(VECTOR.GP));
  const attributes = f.let(attributesOf(target));
  failIf(f, isCode(attributes).eqz(), VECTOR.GP, code, CHECK.gateCode, selector, attributes);
  const dpl = dplOf(attributes), conforming = attributes.and(4).nez();
  // A jump does not change the privilege.
  const allowed = dpl.leU(cpl).and(isCall.or(conforming).or(dpl.eq(cpl)));
  failIf(f, allowed.eqz(), VECTOR.GP, code, CHECK.gateCode, selector, attributes);
  return { selector, code, target, attributes };
}

const levelOf = (attributes: Expr, cpl: Expr): Expr =>
  cpl.when(attributes.and(4), dplOf(attributes));

function buildCallGate(m: Module): void {
  m.func("callGate", ["i64", "i32", "i64"], [], (f, raw, isCall, back) => {
    const cpl = f.let(cell(V.cpl));
    const { selector, code, target, attributes } = gateTarget(f, raw, isCall, cpl);
    const absent = attributes.and(ATTRIBUTE.present).eqz();
    failIf(f, absent, VECTOR.NP, code, CHECK.present, selector);
    const wide = f.let(raw.shrU(43).wrap().and(1));
    const low = raw.and(0xffff);
    const ip = f.let(raw.shrU(32).and(0xffff_0000n).or(low).when(wide, low));
    const limit = f.let(limitOf(target));
    const level = f.let(levelOf(attributes, cpl));
    const inner = f.let(level.ltU(cpl));
    f.if(inner, () => {
      callChecked(f, "innerStack", level);
      const ss = f.let(cell(LINK.stackSelector));
      const stack = callChecked(f, "stackDescriptor", ss, level, i32(VECTOR.TS));
      failIf(f, ip.gtU(limit.zext()), VECTOR.GP, 0, CHECK.limit, ip, limit);
      innerCall(f, raw, ss, stack, wide, back);
    }, () => {
      failIf(f, ip.gtU(limit.zext()), VECTOR.GP, 0, CHECK.limit, ip, limit);
      f.if(isCall, () => {
        callChecked(f, "pushFar", selectorAt(CS), back, i32(32).when(wide, i32(16)));
      });
    });
    f.set(target, callChecked(f, "markAccessedAt", selector, target));
    setFromRaw(f, CS, selector.and(0xfffc).or(level), target);
    setCell64(f, CPU.rip, ip);
  });
}

/** Copies the parameters to the new stack and pushes the return address there. */
function innerCall(f: Func, raw: Local, ss: Local, stack: Local, wide: Local, back: Local): void {
  const oldStack = f.let(cell64(CPU.rsp)), oldSelector = f.let(selectorAt(SS));
  const count = f.let(raw.shrU(32).wrap().and(31)), i = f.let(i32(0));
  const skip = (n: Expr) => n.shl(i32(2).when(wide, i32(1)));
  f.while(() => i.ltU(count), () => {
    const value = f.local("i32");
    f.if(wide, () => f.set(value, callChecked(f, "stackLoad32", skip(i))), () => {
      f.set(value, callChecked(f, "stackLoad16", skip(i)));
    });
    f.store(32, i.shl(2), value, V.gateParameters);
    f.set(i, i.add(1));
  });
  f.call("enterStack", ss, stack, cell64(LINK.stackPointer));
  const push = (value: Expr) => f.call("pushGate", value, wide);
  push(oldSelector);
  push(oldStack.wrap());
  f.while(() => i.nez(), () => {
    f.set(i, i.sub(1));
    push(load("i32", 32, "u", i.shl(2), V.gateParameters));
  });
  push(selectorAt(CS));
  push(back.wrap());
  f.if(cell(V.abort), () => {
    f.if(cell(V.abort).eq(ABORT.fault).and(cell(V.vector).eq(VECTOR.SS)), () => {
      setCell(f, V.errorCode, selectorError(ss));
    });
    f.call("leaveStack");
    leave(f);
  });
}

function buildCallGate64(m: Module): void {
  m.func("callGate64", ["i64", "i64", "i32", "i64"], [], (f, raw, upper, isCall, back) => {
    const cpl = f.let(cell(V.cpl));
    const { selector, code, target, attributes } = gateTarget(f, raw, isCall, cpl);
    const is64 = attributes.and(ATTRIBUTE.long | ATTRIBUTE.big).eq(ATTRIBUTE.long);
    failIf(f, is64.eqz(), VECTOR.GP, code, CHECK.gateCode, selector, attributes);
    const absent = attributes.and(ATTRIBUTE.present).eqz();
    failIf(f, absent, VECTOR.NP, code, CHECK.present, selector);
    const low = raw.shrU(32).and(0xffff_0000n).or(raw.and(0xffff));
    const ip = f.let(low.or(upper.shl(32)));
    failIf(f, isCanonical(ip).eqz(), VECTOR.GP, 0, CHECK.canonical, ip);
    const level = f.let(levelOf(attributes, cpl));
    const inner = f.let(level.ltU(cpl));
    f.set(target, callChecked(f, "markAccessedAt", selector, target));
    f.if(isCall, () => {
      const stack = f.let(cell64(CPU.rsp));
      f.if(inner, () => f.set(stack, callChecked(f, "longStack", level.shl(3).add(4))));
      const access = f.let(callChecked(f, "accessOfLevel", level));
      const edge = isCanonical(stack.sub(1)).and(isCanonical(stack.sub(32)));
      failIf(f, edge.eqz(), VECTOR.SS, selectorError(i32(0)), CHECK.canonical, stack);
      const frame = [selectorAt(CS).zext(), back];
      f.if(inner, () => {
        [selectorAt(SS).zext(), cell64(CPU.rsp), ...frame].forEach((value, i) => {
          callChecked(f, "st64", stack.sub(8 * (i + 1)), access, value);
        });
        setCell64(f, CPU.rsp, stack.sub(32));
        setSegment(f, SS, level, i64(0), i32(0), level.shl(5).or(ATTRIBUTE.unusable));
      }, () => {
        frame.forEach((value, i) => {
          callChecked(f, "st64", stack.sub(8 * (i + 1)), access, value);
        });
        setCell64(f, CPU.rsp, stack.sub(16));
      });
    });
    setFromRaw(f, CS, selector.and(0xfffc).or(level), target);
    setCell64(f, CPU.rip, ip);
  });
}

/** Data segments the outer level may not use become null (SDM 2 RET). */
function dropInnerSegments(f: Func, level: Local): void {
  for (const place of [ES, DS, FS, GS]) {
    const attributes = f.let(attributesAt(place));
    const conforming = attributes.and(0x1c).eq(0x1c);
    const usable = attributes.and(ATTRIBUTE.unusable).eqz();
    f.if(usable.and(conforming.eqz()).and(dplOf(attributes).ltU(level)), () => {
      // The base stays: in 64-bit mode FS and GS go on using it.
      f.store(32, i32(place), i32(0), SEGMENT.selector);
      f.store(32, i32(place), attributes.or(ATTRIBUTE.unusable), SEGMENT.attributes);
    });
  }
}

/**
 * `returnFar(selector, ip, bits, skip, extra, always)`: the checks and loads of RETF and IRET in
 * protected mode. The stack holds `skip` bytes up to and with what was popped, then ESP and SS for an
 * outer level (or `always`); `extra` bytes of parameters are released on both stacks.
 */
function buildReturnFar(m: Module): void {
  const params = ["i32", "i64", "i32", "i32", "i32", "i32"] as const;
  m.func("returnFar", params, [], (f, selector, ip, bits, skip, extra, always) => {
    const stack = f.local("i64"), ss = f.local("i32"), stackRaw = f.local("i64");
    const level = f.let(selector.and(3)), cpl = f.let(cell(V.cpl));
    const outer = f.let(level.ne(cpl)), at = f.let(skip.add(extra));
    const early = f.let(asAmd("far.outer-stack").and(outer.or(always)));
    f.if(early, () => readOuterStack(f, bits, at, stack, ss));
    failIf(f, isNull(selector), VECTOR.GP, 0, CHECK.null, selector);
    const code = f.let(selectorError(selector));
    const raw = callChecked(f, "descriptorOf", selector, i32(VECTOR.GP));
    const attributes = f.let(attributesOf(raw));
    failIf(f, isCode(attributes).eqz(), VECTOR.GP, code, CHECK.type, selector, attributes);
    const dpl = dplOf(attributes);
    const allowed = dpl.leU(level).when(attributes.and(4), dpl.eq(level)).and(level.geU(cpl));
    failIf(f, allowed.eqz(), VECTOR.GP, code, CHECK.returnLevel, selector, attributes);
    const absent = attributes.and(ATTRIBUTE.present).eqz();
    failIf(f, absent, VECTOR.NP, code, CHECK.present, selector);
    checkMode(f, selector, attributes);
    f.set(stackRaw, i64(0));
    f.if(outer.or(always), () => {
      f.if(early.eqz(), () => readOuterStack(f, bits, at, stack, ss));
      const to64 = longMode().and(attributes.shrU(13)).and(1);
      f.if(isNull(ss), () => {
        const fine = to64.and(level.ne(3)).and(ss.and(3).eq(level));
        failIf(f, fine.eqz(), VECTOR.GP, 0, CHECK.returnStack, ss);
      }, () => f.set(stackRaw, callChecked(f, "stackDescriptor", ss, level, i32(VECTOR.GP))));
    });
    checkTarget(f, ip, attributes, f.let(limitOf(raw)));
    f.set(raw, callChecked(f, "markAccessedAt", selector, raw));
    f.if(outer.or(always), () => {
      f.if(isNull(ss), () => {
        setSegment(f, SS, ss, i64(0), i32(0), level.shl(5).or(ATTRIBUTE.unusable));
      }, () => setFromRaw(f, SS, ss, stackRaw));
      setFromRaw(f, CS, selector, raw);
      f.call("setStackTo", stack, bits);
      f.call("addToStack", extra);
    }, () => {
      // The stack pointer moves in the width of the old code segment's mode.
      f.call("addToStack", at);
      setFromRaw(f, CS, selector, raw);
    });
    setCell64(f, CPU.rip, ip);
    f.if(outer, () => dropInnerSegments(f, level));
  });
  // setStackTo(value, bits): a stack pointer popped by a return; 16 bits on a 16-bit stack.
  m.func("setStackTo", ["i64", "i32"], [], (f, value, bits) => {
    const big = attributesAt(SS).and(ATTRIBUTE.big).nez().or(
      longMode().and(attributesAt(CS).shrU(13)).and(1),
    ).or(bits.eq(64));
    f.if(big, () => f.store(64, i32(0), value, CPU.rsp), () => f.store(16, i32(0), value, CPU.rsp));
  });
}

function readOuterStack(f: Func, bits: Local, at: Local, stack: Local, ss: Local): void {
  for (const width of [16, 32, 64] as const) {
    f.if(bits.eq(width), () => {
      f.set(ss, callChecked(f, `stackSelector${width}`, at.add(width / 8)));
      f.set(stack, callChecked(f, `stackLoad${width}`, at).zext());
    });
  }
}

function buildFarReturn(m: Module): void {
  m.func("farReturn", ["i32", "i32"], [], (f, bits, extra) => {
    const ip = f.local("i64"), selector = f.local("i32");
    for (const width of [16, 32, 64] as const) {
      f.if(bits.eq(width), () => {
        // Processors read the selector first: a fault names its address.
        f.set(selector, callChecked(f, `stackSelector${width}`, i32(width / 8)));
        f.set(ip, callChecked(f, `stackLoad${width}`, i32(0)).zext());
      });
    }
    f.if(protectedMode().eqz().or(virtual8086()), () => {
      const limit = f.let(limitAt(CS));
      failIf(f, ip.gtU(limit.zext()), VECTOR.GP, 0, CHECK.limit, ip, limit);
      f.call("addToStack", bits.shrU(2).add(extra));
      setRealTarget(f, selector, ip);
      f.return();
    });
    f.call("returnFar", selector, ip, bits, bits.shrU(2), extra, i32(0));
  });
}

export function buildFar(m: Module): void {
  buildFarTransfer(m);
  buildFarSystem(m);
  buildCallGate(m);
  buildCallGate64(m);
  buildReturnFar(m);
  buildFarReturn(m);
}
