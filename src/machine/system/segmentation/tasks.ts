/** Hardware task switches (SDM 3 chapter 7): 16- and 32-bit task states. */
import { atBit } from "../../mode.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { ACCESS, CPU, gpr, SEGMENT, V } from "../../state.ts";
import { cell, cell64, setCell, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { INTERCEPT } from "../intercepts.ts";
import { type Expr, i32, load } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import {
  ATTRIBUTE,
  attributesAt,
  attributesOf,
  baseAt,
  baseOf,
  callChecked,
  CS,
  dplOf,
  ES,
  ext,
  failIf,
  isCode,
  isNull,
  LDTR,
  leaveIfAborted,
  limitAt,
  limitOf,
  LINK,
  selectorAt,
  selectorError,
  setFromRaw,
  setNull,
  setSegment,
  setVirtual,
  SS,
  TR,
  wrapSystem,
} from "./descriptor.ts";
import { SEGMENT_SIZE } from "../../state.ts";
import { CR0, DR6, RFLAGS } from "../../../abi/x86/cr.ts";

/** What started a task switch, as in bits 31:30 of a VM exit's qualification (SDM 3 table 28-5). */
export const TASK_SOURCE = { call: 0, iret: 1, jump: 2, gate: 3 } as const;

const CHECK = {
  newLimit: check(
    "task.limit",
    "the TSS of selector {a} has the limit {b}, too small for its type",
    "SDM 3 7.3",
  ),
  oldLimit: check(
    "task.oldLimit",
    "the current TSS (selector {a}) has the limit {b}, too small to save to",
    "SDM 3 7.3",
  ),
  code: check(
    "task.code",
    "new task: CS selector {a} (attributes {b}) is not a code segment for its RPL",
    "SDM 3 table 7-1",
  ),
  codePresent: check(
    "task.codePresent",
    "new task: the code segment {a} is not present",
    "SDM 3 table 7-1",
  ),
  ip: check(
    "task.ip",
    "new task: EIP {a} is outside the code segment with limit {b}",
    "SDM 3 table 7-1",
  ),
};

/** Where things stand in a task state: the selectors are six in the order of the registers. */
const LAYOUT = {
  wide: {
    width: 4,
    ip: 0x20,
    flags: 0x24,
    gprs: 0x28,
    selectors: 0x48,
    ldt: 0x60,
    last: 0x67,
    saved: 0x5f,
  },
  narrow: {
    width: 2,
    ip: 0x0e,
    flags: 0x10,
    gprs: 0x12,
    selectors: 0x22,
    ldt: 0x2a,
    last: 0x2b,
    saved: 0x29,
  },
} as const;
type Layout = (typeof LAYOUT)[keyof typeof LAYOUT];

const system = () => cell(V.accessSystem);

/** Touches [base + from, base + to] so that what follows cannot fault. */
function probeRange(f: Func, base: Local, from: number, to: number, write: number): void {
  const linear = wrapSystem(base.add(from));
  callChecked(f, "probeAccess", linear, system().or(write), i32(to - from + 1));
}

function readTask(f: Func, base: Local, x: Layout): void {
  const bits = x.width * 8;
  const read = (offset: number, index: number, width = bits) => {
    const value = callChecked(f, `ld${width}`, wrapSystem(base.add(offset)), system());
    f.store(32, i32(0), value, V.task + 4 * index);
  };
  read(x.ip, 0);
  read(x.flags, 1);
  for (let n = 0; n < 8; n++) read(x.gprs + n * x.width, 2 + n);
  const count = x.width === 4 ? 6 : 4;
  for (let n = 0; n < 6; n++) {
    if (n < count) read(x.selectors + n * x.width, 10 + n, 16);
    else f.store(32, i32(0), i32(0), V.task + 4 * (10 + n));
  }
  read(x.ldt, 16, 16);
  if (x.width === 4) {
    read(0x1c, 17, 32);
    read(0x64, 18, 16);
  } else f.store(32, i32(0), i32(0), V.task + 4 * 18);
}
const saved = (index: number): Expr => cell(V.task + 4 * index);

function writeTask(f: Func, base: Local, x: Layout, ip: Expr, flags: Expr): void {
  const write = (offset: number, value: Expr, bits = x.width * 8) =>
    f.call(`st${bits}`, wrapSystem(base.add(offset)), system(), value);
  write(x.ip, ip.wrap());
  write(x.flags, flags);
  for (let n = 0; n < 8; n++) write(x.gprs + n * x.width, load("i32", 32, "u", i32(0), gpr(n)));
  const count = x.width === 4 ? 6 : 4;
  for (let n = 0; n < count; n++) {
    write(x.selectors + n * x.width, selectorAt(ES + n * SEGMENT_SIZE), 16);
  }
}

/** Sets or clears the busy bit of the TSS descriptor that `selector` names. */
function setBusy(f: Func, selector: Expr, busy: boolean): void {
  const at = f.call("descriptorAddress", selector, i32(8));
  f.if(at.ne(-1), () => {
    const where = f.let(wrapSystem(at.add(5)));
    const type = f.call("ld8", where, system());
    f.call("st8", where, system(), busy ? type.or(2) : type.and(~2));
  });
}

/** The loads of the new task, after the point of no return. */
function buildLoadTaskSegments(m: Module): void {
  m.func("loadTaskSegments", [], [], (f) => {
    const selector = (n: number) => saved(10 + n);
    f.if(cell(CPU.rflags).and(RFLAGS.VM), () => {
      for (let n = 0; n < 6; n++) setVirtual(f, i32(ES + n * SEGMENT_SIZE), selector(n));
      f.call("refresh");
      callChecked(f, "loadLdt", saved(16), i32(VECTOR.TS));
      f.return();
    });
    // Nothing is usable until it has been checked; the privilege is the new CS's already.
    const level = f.let(selector(1).and(3));
    for (let n = 0; n < 6; n++) setNull(f, i32(ES + n * SEGMENT_SIZE), selector(n));
    f.store(32, i32(SS), level.shl(5).or(ATTRIBUTE.unusable), SEGMENT.attributes);
    setNull(f, i32(LDTR), saved(16));
    f.call("refresh");
    callChecked(f, "loadLdt", saved(16), i32(VECTOR.TS));
    const cs = f.let(selector(1)), code = f.let(selectorError(cs));
    failIf(f, isNull(cs), VECTOR.TS, ext(), CHECK.code, cs);
    const raw = callChecked(f, "descriptorOf", cs, i32(VECTOR.TS));
    const attributes = f.let(attributesOf(raw));
    const dpl = dplOf(attributes);
    const allowed = dpl.leU(level).when(attributes.and(4), dpl.eq(level));
    failIf(f, isCode(attributes).and(allowed).eqz(), VECTOR.TS, code, CHECK.code, cs, attributes);
    const absent = attributes.and(ATTRIBUTE.present).eqz();
    failIf(f, absent, VECTOR.NP, code, CHECK.codePresent, cs);
    setFromRaw(f, CS, cs, callChecked(f, "markAccessed", raw));
    const ss = f.let(selector(2));
    const stack = callChecked(f, "stackDescriptor", ss, level, i32(VECTOR.TS));
    setFromRaw(f, SS, ss, stack);
    for (const n of [0, 3, 4, 5]) {
      const data = f.let(selector(n));
      f.if(isNull(data).eqz(), () => {
        const value = callChecked(f, "dataDescriptor", data, level, i32(VECTOR.TS));
        setFromRaw(f, i32(ES + n * SEGMENT_SIZE), data, value);
      });
    }
  });
}

function setRegisters(f: Func, wide: Local): void {
  const flags = f.let(saved(1));
  // A 16-bit TSS has no upper halves, and the manuals say nothing of them: ones, as the 386 has it.
  const upper = f.let(i32(0).when(wide, i32(0xffff_0000 | 0)));
  for (let n = 0; n < 8; n++) setCell64(f, gpr(n), saved(2 + n).or(upper).zext());
  const mask = i32(0x3f_7fd5).when(wide, i32(0x7fd5));
  setCell(f, CPU.rflags, flags.and(mask).or(RFLAGS.fixed));
  setCell64(f, CPU.rip, saved(0).zext());
}

/**
 * `switchTask(selector, raw descriptor, flags to save, EIP to save, source)`: type and presence of the
 * descriptor have been checked and `descriptorOf` has just read it. Sets LINK.taskSwitched once the
 * old task is saved; a fault after that belongs to the new task.
 */
export function buildTasks(m: Module): void {
  buildLoadTaskSegments(m);
  m.func(
    "switchTask",
    ["i32", "i64", "i32", "i64", "i32"],
    [],
    (f, selector, raw, flags, ip, source) => {
      if (m.has("intercept")) {
        f.if(cell(V.nonRoot), () => {
          const qualification = selector.zext().or(source.zext().shl(30));
          f.call("intercept", i32(INTERCEPT["task-switch"]), qualification);
          leaveIfAborted(f);
        });
      }
      const wide = f.let(raw.shrU(43).wrap().and(1));
      const limit = f.let(limitOf(raw)), code = f.let(selectorError(selector));
      const least = i32(LAYOUT.wide.last).when(wide, i32(LAYOUT.narrow.last));
      failIf(f, limit.ltU(least), VECTOR.TS, code, CHECK.newLimit, selector, limit);
      const oldWide = f.let(attributesAt(TR).and(8)), oldLimit = f.let(limitAt(TR));
      const oldSelector = f.let(selectorAt(TR));
      const oldLeast = i32(LAYOUT.wide.saved).when(oldWide, i32(LAYOUT.narrow.saved));
      const short = oldLimit.ltU(oldLeast);
      failIf(
        f,
        short,
        VECTOR.TS,
        selectorError(oldSelector),
        CHECK.oldLimit,
        oldSelector,
        oldLimit,
      );
      const base = f.let(baseOf(raw)), oldBase = f.let(baseAt(TR));
      const nested = f.let(source.eq(TASK_SOURCE.call).or(source.eq(TASK_SOURCE.gate)));
      f.if(oldWide, () => probeRange(f, oldBase, 0x20, 0x5f, ACCESS.write), () => {
        probeRange(f, oldBase, 0x0e, 0x29, ACCESS.write);
      });
      f.if(nested, () => probeRange(f, base, 0, 1, ACCESS.write));
      f.if(wide, () => readTask(f, base, LAYOUT.wide), () => readTask(f, base, LAYOUT.narrow));
      const cr3 = f.let(saved(17).zext());
      const paged = f.let(wide.and(atBit(cell(CPU.cr0), CR0.PG)));
      f.if(paged, () => callChecked(f, "checkPdptes", cr3));
      // The busy bit can be written if the descriptor can.
      const descriptor = wrapSystem(cell64(LINK.descriptorAt).add(5));
      callChecked(f, "probeAccess", descriptor, system().or(ACCESS.write), i32(1));

      const image = f.let(flags);
      f.if(source.eq(TASK_SOURCE.iret), () => f.set(image, image.and(~RFLAGS.NT)));
      f.if(nested.eqz(), () => setBusy(f, oldSelector, false));
      f.if(oldWide, () => writeTask(f, oldBase, LAYOUT.wide, ip, image), () => {
        writeTask(f, oldBase, LAYOUT.narrow, ip, image);
      });
      f.if(nested, () => f.call("st16", wrapSystem(base), system(), oldSelector));
      f.if(source.ne(TASK_SOURCE.iret), () => setBusy(f, selector, true));
      setCell(f, LINK.taskSwitched, 1);

      setCell(f, CPU.cr0, cell(CPU.cr0).or(CR0.TS));
      setCell64(f, CPU.dr7, cell64(CPU.dr7).and(~0x155n));
      setSegment(f, TR, selector, base, limit, attributesOf(raw).or(2));
      f.if(paged, () => f.call("loadCr3", cr3));
      setRegisters(f, wide);
      f.if(nested, () => setCell(f, CPU.rflags, cell(CPU.rflags).or(RFLAGS.NT)));
      callChecked(f, "loadTaskSegments");
      f.call("refresh");
      f.if(saved(18).and(1), () => {
        setCell64(f, CPU.pendingDebug, cell64(CPU.pendingDebug).or(DR6.BT));
      });
      const end = f.let(limitAt(CS));
      const at = f.let(cell64(CPU.rip));
      failIf(f, at.gtU(end.zext()), VECTOR.GP, ext(), CHECK.ip, at, end);
    },
  );
}
