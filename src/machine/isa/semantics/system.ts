/** Descriptor-table registers, machine status word, TLB and cache control, waiting (SDM 2, SDM 3 2.8). */
import { RAX, RCX } from "../../../abi/x86/registers.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { ACTIVITY, CPU, SEGMENT, V } from "../../state.ts";
import { cell, cell64, setCell, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { i32, i64, load } from "../../wasm/expr.ts";
import { CR4, RFLAGS } from "../../../abi/x86/cr.ts";
import { LDTR, TR } from "../../system/segmentation/descriptor.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { undefinedIf } from "./system_helpers.ts";
import { isCanonical, longMode } from "../../mode.ts";

const CHECK = {
  base: check("table.base", "the table base {a} is not canonical", "SDM 2 LGDT"),
  monitor: check(
    "monitor.extensions",
    "MONITOR or MWAIT with unsupported bits in ECX: {a}",
    "SDM 2 MONITOR",
  ),
  invpcid: check(
    "invpcid.type",
    "INVPCID: type {a} or descriptor {b} is not allowed",
    "SDM 2 INVPCID",
  ),
};

/** Numbers of the instructions in the qualification of a "descriptor-table" intercept. */
const TABLE = { sgdt: 0, sidt: 1, lgdt: 2, lidt: 3, sldt: 4, str: 5, lldt: 6, ltr: 7 } as const;

const storeTable = (register: "gdtr" | "idtr"): Semantics => (m) => {
  m.requireGuard();
  m.intercept("descriptor-table", i64(register === "gdtr" ? TABLE.sgdt : TABLE.sidt));
  const long = m.form.sizes[0] === 80;
  const linear = m.addressOf(0, long ? 10 : 6, true);
  m.mayFaultLate = true;
  m.callChecked("probeAccess", linear, cell(V.access).or(2), i32(long ? 10 : 6));
  const base = cell64(CPU[`${register}.base`]);
  m.storeLinear(16, linear, cell(CPU[`${register}.limit`]));
  m.storeLinear(long ? 64 : 32, linear.add(2), long ? base : base.wrap());
};

const loadTable = (register: "gdtr" | "idtr"): Semantics => (m) => {
  m.requirePrivilege();
  m.intercept("descriptor-table", i64(register === "gdtr" ? TABLE.lgdt : TABLE.lidt));
  const long = m.form.sizes[0] === 80;
  const linear = m.addressOf(0, long ? 10 : 6, false);
  const limit = m.loadLinear(16, linear);
  const base = m.f.let(m.loadLinear(long ? 64 : 32, linear.add(2)).zext());
  if (long) m.faultIf(isCanonical(base).eqz(), VECTOR.GP, 0, CHECK.base, base);
  // A 16-bit operand size takes 24 bits of base (SDM 2 LGDT).
  const value = m.form.operandSize === 16 && !long ? base.and(0xff_ffff) : base;
  m.commit();
  setCell64(m.f, CPU[`${register}.base`], value);
  setCell64(m.f, CPU[`${register}.limit`], limit.zext());
};

const storeSelector = (place: number, number: number): Semantics => (m) => {
  m.requireProtected();
  m.requireGuard();
  m.intercept("descriptor-table", i64(number));
  const selector = load("i32", 16, "u", i32(0), place + SEGMENT.selector);
  m.write(0, m.type() === "i64" ? selector.zext() : selector);
};

const loadSelector = (name: string, number: number): Semantics => (m) => {
  m.requireProtected();
  m.requirePrivilege();
  m.intercept("descriptor-table", i64(number));
  const selector = m.f.let(m.readU(0).and(0xffff));
  if (name === "loadLdt") m.callChecked(name, selector, i32(13));
  else m.callChecked(name, selector);
};

/** CLFLUSH, CLFLUSHOPT, CLWB: a byte that could be read. */
function flushLine(m: Meaning): void {
  const linear = m.addressOf(0, 1, false);
  m.callChecked("probeAccess", linear, cell(V.access), i32(1));
}

/** INVLPG, INVPCID, INVD, WBINVD. */
const flushing: Record<string, Semantics> = {
  invlpg: (m) => {
    m.requirePrivilege();
    const base = load("i64", 64, "u", m.segment);
    const linear = m.f.let(m.segmentOffset().add(base));
    m.f.if(longMode().eqz(), () => m.f.set(linear, linear.and(0xffff_ffffn)));
    m.intercept("invlpg", linear);
    m.f.if(isCanonical(linear), () => m.f.call("invalidatePage", linear));
    m.finish();
  },
  invpcid: (m) => {
    m.mayBeAbsent("invpcid");
    m.requirePrivilege();
    m.intercept("invpcid");
    const linear = m.addressOf(1, 16, false);
    const descriptor = m.loadLinear(64, linear), address = m.loadLinear(64, linear.add(8));
    const type = m.f.let(m.readU(0).zext());
    const pcid = cell(CPU.cr4).and(CR4.PCIDE).eqz().and(descriptor.nez()).and(type.ltU(2));
    const bad = type.gtU(3).or(descriptor.gtU(0xfff)).or(pcid).or(
      type.eqz().and(isCanonical(address).eqz()),
    );
    m.faultIf(bad, VECTOR.GP, 0, CHECK.invpcid, type, descriptor);
    m.f.call("flushTlb");
    m.finish();
  },
  invd: (m) => {
    m.requirePrivilege();
    m.intercept("invd");
  },
  wbinvd: (m) => {
    m.requirePrivilege();
    m.intercept("wbinvd");
  },
  clflush: flushLine,
  clflushopt: flushLine,
  clwb: flushLine,
};

/** Sleeps until an event. */
function sleep(m: Meaning): void {
  m.commit();
  setCell(m.f, CPU.activity, ACTIVITY.hlt);
  m.finish();
}

const waiting: Record<string, Semantics> = {
  hlt: (m) => {
    m.requirePrivilege();
    m.intercept("hlt");
    sleep(m);
  },
  monitor: (m) => {
    m.requirePrivilege();
    m.intercept("monitor");
    const extensions = m.f.let(m.gprU(RCX, 32));
    m.faultIf(extensions.nez(), VECTOR.GP, 0, CHECK.monitor, extensions);
    const offset = m.f.let(m.pointer(RAX, m.addressMask()));
    const linear = m.callChecked("segmentLinear", m.segment, offset, i32(1), i32(0));
    m.callChecked("probeAccess", linear, cell(V.access), i32(1));
  },
  mwait: (m) => {
    m.requirePrivilege();
    m.intercept("mwait");
    const extensions = m.f.let(m.gprU(RCX, 32));
    m.faultIf(extensions.gtU(1), VECTOR.GP, 0, CHECK.monitor, extensions);
    // It may end at any time; with interrupts off nothing here would wake it, so it ends at once.
    m.f.if(m.systemFlags(RFLAGS.IF), () => sleep(m));
  },
  pause: (m) => m.intercept("pause"),
};

const nothing: Semantics = () => {};
const undefinedInstruction: Semantics = (m) => undefinedIf(m, i32(1));

export const tableSemantics: Record<string, Semantics> = {
  sgdt: storeTable("gdtr"),
  sidt: storeTable("idtr"),
  lgdt: loadTable("gdtr"),
  lidt: loadTable("idtr"),
  sldt: storeSelector(LDTR, TABLE.sldt),
  str: storeSelector(TR, TABLE.str),
  lldt: loadSelector("loadLdt", TABLE.lldt),
  ltr: loadSelector("loadTask", TABLE.ltr),
  ...flushing,
  ...waiting,
  lfence: nothing,
  mfence: nothing,
  sfence: nothing,
  ud0: undefinedInstruction,
  ud1: undefinedInstruction,
  ud2: undefinedInstruction,
  // Not in system-management mode, ever.
  rsm: (m) => {
    m.intercept("rsm");
    undefinedIf(m, i32(1));
  },
};
