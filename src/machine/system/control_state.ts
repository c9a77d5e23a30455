/** Control registers and EFER: what may be written, and what follows (SDM 3 2.5, 4.1, 9.8.5). */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { CPU, pdpte, V } from "../state.ts";
import { cell, cell64, SERVICE, setCell64 } from "../linkage.ts";
import { check } from "../checks.ts";
import { POINTER_TABLE } from "../mmu/modes.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import {
  type Condition,
  CR0_KNOWN,
  CR4_KNOWN,
  EFER_KNOWN,
  LOADS_PDPTES,
  type RuleOperand,
  RULES,
} from "./control_rules.ts";
import {
  attributesAt,
  callChecked,
  CS,
  failIf,
  leaveIfAborted,
} from "./segmentation/descriptor.ts";
import { CR0, CR4, EFER } from "../../abi/x86/cr.ts";
import { PDPTE_RESERVED } from "../mmu/modes.ts";
import { atBit, is64, longMode } from "../mode.ts";

const CHECK = {
  cr0Reserved: check("cr0.reserved", "MOV to CR0: {a} sets reserved bits above 31", "SDM 2 MOV CR"),
  cr4Reserved: check(
    "cr4.reserved",
    "MOV to CR4: {a} sets bits that are reserved, of {b}",
    "SDM 2 MOV CR",
  ),
  cr3: check(
    "cr3.reserved",
    "MOV to CR3: {a} sets bits above the physical-address width",
    "SDM 2 MOV CR",
  ),
  pdpte: check("pdpte.reserved", "PAE: PDPTE {a} = {b} has a reserved bit set", "SDM 3 4.4.1"),
  cr8: check("cr8.reserved", "MOV to CR8: {a} sets bits above 3", "SDM 2 MOV CR"),
  efer: check(
    "efer.reserved",
    "WRMSR EFER: {a} sets bits that are reserved, of {b}",
    "SDM 3 2.2.1",
  ),
};

const valid = (at: number, known: number): Expr => cell64(at).when(cell64(at).nez(), i64(known));
/** Bits of CR4 and of EFER that can be set on this processor, as i64. */
export const cr4Allowed = (): Expr => valid(V.cr4Valid, CR4_KNOWN);
export const eferAllowed = (): Expr => valid(V.eferValid, EFER_KNOWN);

/** What a rule's condition asks for, in words; the registers are the processor's if not given. */
export type Operands = Partial<Readonly<Record<RuleOperand, Expr>>>;

/** 1 if a condition of the rules holds. */
export function holds(condition: Condition, given: Operands): Expr {
  const own: Operands = {
    cr0: cell(CPU.cr0),
    cr3: cell(CPU.cr3),
    cr4: cell(CPU.cr4),
    efer: cell(CPU.efer),
    cs: attributesAt(CS),
    ...given,
  };
  const terms = Object.entries(condition).flatMap(([of, { has = 0, lacks = 0, some }]) => {
    const word = own[of as RuleOperand]!;
    return [
      ...has | lacks ? [word.and(has | lacks).eq(has | 0)] : [],
      ...some === undefined ? [] : [word.and(some).nez()],
    ];
  });
  return terms.reduce((every, term) => every.and(term));
}

/** #GP(0) for a write that breaks a rule; `now` and `old` are words, `value` is what is written. */
function obey(f: Func, register: keyof typeof RULES, value: Local, given: Operands): void {
  for (const rule of RULES[register]) {
    const broken = rule.when.map((condition) => holds(condition, given))
      .reduce((any, one) => any.or(one));
    const shown = rule.shows === "now" ? value : cell64(CPU[rule.shows]);
    failIf(f, broken, VECTOR.GP, 0, check(rule.name, rule.text, rule.source), shown);
  }
}

/** Paging with PAE outside IA-32e mode: CR3 points to four PDPTEs held in registers. */
const paePaging = (cr0: Expr, cr4: Expr): Expr =>
  atBit(cr0, CR0.PG).and(atBit(cr4, CR4.PAE)).and(1).and(longMode().eqz()).and(
    cell(V.pdptesInMemory).eqz(),
  );

function buildPdptes(m: Module): void {
  // readPdptes(cr3): the four entries into V.pdptes; #GP(0) for a reserved bit in a present one.
  m.func("readPdptes", ["i64"], [], (f, cr3) => {
    const table = f.let(cr3.and(POINTER_TABLE));
    const reserved = f.let(cell64(V.reservedHigh).or(PDPTE_RESERVED));
    for (let n = 0; n < 4; n++) {
      const at = f.call("nested", table.add(8 * n), i32(0), i64(-1));
      leaveIfAborted(f);
      const entry = f.call("physicalLoad64", at);
      leaveIfAborted(f);
      const bad = entry.and(1).nez().and(entry.and(reserved).nez());
      failIf(f, bad, VECTOR.GP, 0, CHECK.pdpte, i64(n), entry);
      setCell64(f, V.pdptes + 8 * n, entry);
    }
  });
  m.func("setPdptes", [], [], (f) => {
    for (let n = 0; n < 4; n++) setCell64(f, pdpte(n), cell64(V.pdptes + 8 * n));
  });
  // For a task switch: checks before its point of no return; loadCr3 does the rest.
  m.func("checkPdptes", ["i64"], [], (f, cr3) => {
    const pae = paePaging(cell(CPU.cr0), cell(CPU.cr4));
    f.if(pae, () => f.call("readPdptes", cr3));
  });
  m.func("loadCr3", ["i64"], [], (f, cr3) => {
    f.if(paePaging(cell(CPU.cr0), cell(CPU.cr4)), () => f.call("setPdptes"));
    setCell64(f, CPU.cr3, cr3);
    f.call("flushTlb");
  });
}

function buildCr0(m: Module): void {
  m.func("writeCr0", ["i64"], [], (f, value) => {
    const low = f.let(value.wrap()), old = f.let(cell(CPU.cr0)), cr4 = f.let(cell(CPU.cr4));
    failIf(f, is64().and(value.shrU(32).nez()), VECTOR.GP, 0, CHECK.cr0Reserved, value);
    obey(f, "cr0", value, { now: low, old });
    // ET is fixed to 1; undefined bits read as 0.
    const now = f.let(low.and(CR0_KNOWN | 0).or(CR0.ET));
    const efer = f.let(cell(CPU.efer));
    const paging = f.let(now.shrU(31).sub(old.shrU(31)));
    const lme = atBit(efer, EFER.LME).and(1);
    // Paging that begins with LME is IA-32e mode's.
    const pae = paePaging(now, cr4).and(paging.eq(1).and(lme).eqz());
    f.if(old.xor(now).and(LOADS_PDPTES[0] | 0).nez().and(pae), () => {
      callChecked(f, "readPdptes", cell64(CPU.cr3));
      f.call("setPdptes");
    });
    f.if(paging.eq(1).and(lme), () => setCell64(f, CPU.efer, cell64(CPU.efer).or(EFER.LMA)));
    f.if(paging.eq(-1), () => setCell64(f, CPU.efer, cell64(CPU.efer).and(~BigInt(EFER.LMA))));
    setCell64(f, CPU.cr0, now.zext());
    f.if(old.xor(now).and((CR0.PG | CR0.WP | CR0.PE) | 0), () => f.call("flushTlb"));
  });
}

function buildCr3(m: Module): void {
  m.func("writeCr3", ["i64"], [], (f, value) => {
    const pcide = atBit(cell(CPU.cr4), CR4.PCIDE).and(1);
    const clean = f.let(value.and(~(1n << 63n)).when(pcide, value));
    f.if(longMode(), () => {
      const high = clean.and(cell64(V.reservedHigh).or(~0xf_ffff_ffff_ffffn));
      failIf(f, high.nez(), VECTOR.GP, 0, CHECK.cr3, value);
    });
    f.if(paePaging(cell(CPU.cr0), cell(CPU.cr4)), () => callChecked(f, "readPdptes", clean));
    f.call("loadCr3", clean);
  });
}

function buildCr4(m: Module): void {
  m.func("writeCr4", ["i64"], [], (f, value) => {
    const allowed = f.let(cr4Allowed());
    const old = f.let(cell(CPU.cr4)), now = f.let(value.wrap());
    const reserved = value.and(allowed.not()).nez();
    failIf(f, reserved, VECTOR.GP, 0, CHECK.cr4Reserved, value, allowed);
    obey(f, "cr4", value, { now, old });
    const changed = f.let(old.xor(now));
    const reload = f.let(
      changed.and(LOADS_PDPTES[4]).nez().and(paePaging(cell(CPU.cr0), now)),
    );
    f.if(reload, () => {
      callChecked(f, "readPdptes", cell64(CPU.cr3));
      f.call("setPdptes");
    });
    setCell64(f, CPU.cr4, value);
    const flushing = CR4.PSE | CR4.PAE | CR4.PGE | CR4.PCIDE | CR4.SMEP | CR4.SMAP;
    f.if(changed.and(flushing), () => f.call("flushTlb"));
  });
  m.func("writeCr8", ["i64"], [], (f, value) => {
    failIf(f, value.gtU(15), VECTOR.GP, 0, CHECK.cr8, value);
    setCell64(f, CPU.cr8, value);
    // A guest of SVM may have a virtual priority.
    if (m.has("priorityIsVirtual")) f.if(f.call("priorityIsVirtual"), () => f.return());
    // The local APIC's task priority, where the processor is the guest's own.
    f.call("service", SERVICE.priority, value.wrap());
  });
}

function buildEfer(m: Module): void {
  m.func("writeEfer", ["i64"], [], (f, value) => {
    const allowed = f.let(eferAllowed());
    failIf(f, value.and(allowed.not()).nez(), VECTOR.GP, 0, CHECK.efer, value, allowed);
    const old = f.let(cell64(CPU.efer));
    const changed = f.let(old.xor(value).wrap());
    obey(f, "efer", value, { now: value.wrap(), old: old.wrap() });
    // LMA is the processor's own.
    setCell64(f, CPU.efer, value.and(~BigInt(EFER.LMA)).or(old.and(EFER.LMA)));
    f.if(changed.and(EFER.NXE), () => f.call("flushTlb"));
  });
}

/** Functions `writeCr0/3/4/8(value)`, `writeEfer(value)`, `loadCr3`, `checkPdptes`. */
export function buildControlState(m: Module): void {
  buildPdptes(m);
  buildCr0(m);
  buildCr3(m);
  buildCr4(m);
  buildEfer(m);
}

/**
 * The time-stamp counter: instructions retired and IA32_TSC_ADJUST, for a guest by the ratio in force
 * (8.32 bits, APM 2 15.30.5) and with its offset.
 */
export function timeStamp(): Expr {
  const host = hostTimeStamp();
  const ratio = cell64(V.tscRatio), fraction = ratio.and(0xffff_ffffn);
  const scaled = host.mul(ratio.shrU(32)).add(host.shrU(32).mul(fraction))
    .add(host.and(0xffff_ffffn).mul(fraction).shrU(32));
  return scaled.when(ratio.nez(), host).add(cell64(CPU.tscOffset));
}

/** The counter itself, as it is without a guest's ratio and offset. */
export function hostTimeStamp(): Expr {
  const retired = load("i64", 32, "u", i32(0), V.slice).sub(load("i64", 32, "u", i32(0), V.left));
  return cell64(V.countBase).add(retired).add(cell64(CPU.tscAdjust));
}
