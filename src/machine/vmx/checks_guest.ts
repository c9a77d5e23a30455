/**
 * VM-entry checks on the guest-state area (SDM 3 26.3.1). A failure is a VM exit with reason 33;
 * the functions give 0, or 1 plus the exit qualification.
 */
import { CR0, CR4, DEBUGCTL, EFER, RFLAGS } from "../../abi/x86/cr.ts";
import { EVENT_TYPE, VECTOR } from "../../abi/x86/vectors.ts";
import { ENTRY_CONTROL, SECONDARY } from "../../abi/x86/vmx.ts";
import { cell64, MEMORY } from "../linkage.ts";
import { CPU, INTERRUPTIBILITY, V } from "../state.ts";
import { type Expr, i64, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { CR0_FIXED0, CR4_FIXED0, CR4_FIXED1, DEBUGCTL_BITS, EFER_BITS } from "./capabilities.ts";
import { FORBIDDEN } from "../system/control_rules.ts";
import { holds } from "../system/control_state.ts";
import { Checks, secondaryOf } from "./checks_controls.ts";
import { HEAD, VMCS_REVISION, VmcsRegion } from "./layout.ts";
import { patInvalid, tooWide } from "../values.ts";
import { atBit, isCanonical } from "../mode.ts";
import { PDPTE_RESERVED } from "../mmu/modes.ts";

const { PE } = CR0, { PAE } = CR4, { VM, TF, IF } = RFLAGS;
const UNUSABLE = 0x1_0000;
/** Bits of access rights that must be 0: 11:8 and 31:17. */
const RIGHTS_RESERVED = 0xfffe_0f00 | 0;

/** What the checks ask of the guest's mode, worked out once. */
interface Mode {
  entry: Local;
  cr0: Local;
  ia32e: Local;
  unrestricted: Local;
  v86: Local;
}

function modeOf(f: Func, vmcs: VmcsRegion): Mode {
  const entry = f.let(vmcs.low("entryControls"));
  return {
    entry,
    cr0: f.let(vmcs.get("guestCr0")),
    ia32e: f.let(entry.shrU(9).and(1)),
    unrestricted: f.let(secondaryOf(vmcs).and(SECONDARY.unrestrictedGuest).nez()),
    v86: f.let(vmcs.low("guestRflags").and(VM)),
  };
}

function controlRegisters(c: Checks, vmcs: VmcsRegion, mode: Mode): void {
  const f = c.f, { cr0, ia32e, entry } = mode;
  const cr4 = f.let(vmcs.get("guestCr4")), cr3 = vmcs.get("guestCr3");
  const fixed = f.let(i64(0x20).when(mode.unrestricted, i64(CR0_FIXED0)));
  c.fail(
    "cr0",
    "guest CR0 {a} lacks bits that VMX operation fixes at 1: {b}",
    cr0.and(fixed).ne(fixed).or(cr0.shrU(32).nez()),
    cr0,
    fixed,
  );
  const paging = f.let(atBit(cr0.wrap(), CR0.PG)), pae = f.let(cr4.wrap().and(PAE));
  c.fail(
    "cr0.pg",
    "guest CR0 {a} has PG without PE",
    holds(FORBIDDEN.pagingWithoutProtection, { now: cr0.wrap() }),
    cr0,
  );
  c.fail(
    "cr4",
    "guest CR4 {a} has bits that VMX operation does not allow, or lacks VMXE",
    cr4.and(CR4_FIXED0).eqz().or(cr4.and(~BigInt(CR4_FIXED1)).nez()),
    cr4,
  );
  f.if(entry.and(ENTRY_CONTROL.loadDebug), () => {
    const debugctl = vmcs.get("guestDebugctl"), dr7 = vmcs.get("guestDr7");
    c.fail(
      "debugctl",
      "guest DEBUGCTL {a} has reserved bits set",
      debugctl.and(~BigInt(DEBUGCTL_BITS)).nez(),
      debugctl,
    );
    c.fail("dr7", "guest DR7 {a} is wider than 32 bits", dr7.shrU(32).nez(), dr7);
  });
  c.fail(
    "ia32e.paging",
    "IA-32e mode guest with CR0 {a} and CR4 {b}: PG and PAE are both needed",
    ia32e.and(paging.eqz().or(pae.eqz())),
    cr0,
    cr4,
  );
  c.fail("cr3", "guest CR3 {a} is wider than a physical address", tooWide(cr3), cr3);
  for (const name of ["guestSysenterEsp", "guestSysenterEip"]) canonical(c, vmcs, name);
  f.if(entry.and(ENTRY_CONTROL.loadPat), () => {
    const pat = vmcs.get("guestPat");
    c.fail("pat", "guest PAT {a} holds a byte that is no memory type", patInvalid(f, pat), pat);
  });
  f.if(entry.and(ENTRY_CONTROL.loadEfer), () => {
    const efer = f.let(vmcs.get("guestEfer"));
    const lma = f.let(atBit(efer, EFER.LMA).wrap().and(1)),
      lme = atBit(efer, EFER.LME).wrap().and(1);
    c.fail(
      "efer",
      "guest EFER {a} has reserved bits set",
      efer.and(~BigInt(EFER_BITS)).nez(),
      efer,
    );
    c.fail(
      "efer.lma",
      "guest EFER {a}: LMA is not that of the IA-32e mode guest control, or LME differs under paging",
      lma.ne(ia32e).or(paging.and(lma.ne(lme))),
      efer,
    );
  });
}

function canonical(c: Checks, vmcs: VmcsRegion, name: string): void {
  const value = vmcs.get(name);
  c.fail(name, `${name} {a} is not canonical`, isCanonical(value).eqz(), value);
}

/** Limit against granularity: fails in 1 of the two ways (26.3.1.2). */
function granularity(limit: Expr, rights: Expr): Expr {
  const g = rights.and(0x8000);
  return limit.and(0xfff).ne(0xfff).and(g.nez()).or(limit.shrU(20).nez().and(g.eqz()));
}

/** One of the six: usable parts come in with `usable`. */
function codeOrData(c: Checks, vmcs: VmcsRegion, mode: Mode, s: string): void {
  const f = c.f, name = s.toUpperCase(), low = s.toLowerCase();
  const rights = f.let(vmcs.low(`guest${s}AccessRights`));
  const limit = vmcs.low(`guest${s}Limit`), selector = vmcs.low(`guest${s}Selector`);
  const base = vmcs.get(`guest${s}Base`);
  f.if(mode.v86, () => {
    c.fail(
      `${low}.v86`,
      `guest ${name} in virtual-8086 mode: base {a} is not 16 times the selector, limit not 0xffff, or rights {b} not 0xf3`,
      base.ne(selector.zext().shl(4)).or(limit.ne(0xffff)).or(rights.ne(0xf3)),
      base,
      rights,
    );
  }, () => {
    const usable = () => {
      const type = f.let(rights.and(15)), dpl = f.let(rights.shrU(5).and(3));
      const bad = (part: string, text: string, condition: Expr) =>
        c.fail(`${low}.${part}`, `guest ${name} access rights {a}: ${text}`, condition, rights);
      typeAndPrivilege(bad, vmcs, mode, s, type, dpl);
      bad("system", "S is 0", rights.and(0x10).eqz());
      bad("present", "P is 0", rights.and(0x80).eqz());
      bad("reserved", "reserved bits are set", rights.and(RIGHTS_RESERVED).nez());
      c.fail(
        `${low}.granularity`,
        `guest ${name} limit {a} does not fit granularity in access rights {b}`,
        granularity(limit, rights),
        limit,
        rights,
      );
      if (s !== "Fs" && s !== "Gs") {
        c.fail(
          `${low}.base`,
          `guest ${name} base {a} is wider than 32 bits`,
          base.shrU(32).nez(),
          base,
        );
      }
    };
    if (s === "Cs") usable();
    else f.if(rights.and(UNUSABLE).eqz(), usable);
  });
  if (s === "Fs" || s === "Gs") canonical(c, vmcs, `guest${s}Base`);
}

type Bad = (part: string, text: string, condition: Expr) => void;

function typeAndPrivilege(
  bad: Bad,
  vmcs: VmcsRegion,
  mode: Mode,
  s: string,
  type: Local,
  dpl: Local,
) {
  const ssDpl = vmcs.low("guestSsAccessRights").shrU(5).and(3);
  const rpl = vmcs.low(`guest${s}Selector`).and(3);
  const restricted = mode.unrestricted.eqz();
  if (s === "Cs") {
    const data = mode.unrestricted.and(type.eq(3));
    bad("type", "not an accessed code segment", type.and(9).ne(9).and(data.eqz()));
    bad(
      "dpl",
      "DPL does not fit that of SS",
      type.eq(3).and(dpl.nez())
        .or(type.and(0xd).eq(9).and(dpl.ne(ssDpl)))
        .or(type.and(0xd).eq(0xd).and(dpl.gtU(ssDpl))),
    );
    const rights = vmcs.low("guestCsAccessRights");
    bad(
      "long",
      "L and D are both set for an IA-32e mode guest",
      mode.ia32e.and(rights.and(0x6000).eq(0x6000)),
    );
  } else if (s === "Ss") {
    bad("type", "not accessed, writable data", type.ne(3).and(type.ne(7)));
  } else {
    bad(
      "type",
      "not accessed, or code that is not readable",
      type.and(1).eqz().or(type.and(0xa).eq(8)),
    );
    bad(
      "dpl",
      "DPL is below the selector's RPL",
      restricted.and(type.leU(11)).and(dpl.ltU(rpl)),
    );
  }
}

function stack(c: Checks, vmcs: VmcsRegion, mode: Mode): void {
  const ss = vmcs.low("guestSsSelector"), cs = vmcs.low("guestCsSelector");
  const rights = vmcs.low("guestSsAccessRights");
  const dpl = rights.shrU(5).and(3);
  c.f.if(mode.v86.eqz(), () => {
    c.f.if(mode.unrestricted.eqz(), () => {
      c.fail(
        "ss.rpl",
        "guest SS selector {a} and CS selector {b} differ in RPL",
        ss.xor(cs).and(3).nez(),
        ss,
        cs,
      );
      c.fail(
        "ss.dpl",
        "guest SS access rights {a}: DPL is not the RPL of selector {b}",
        dpl.ne(ss.and(3)),
        rights,
        ss,
      );
    });
    const realOrData = vmcs.low("guestCsAccessRights").and(15).eq(3)
      .or(mode.cr0.wrap().and(PE).eqz());
    c.fail(
      "ss.dplZero",
      "guest SS access rights {a}: DPL is not 0 though CS is a data segment or CR0.PE is 0",
      realOrData.and(dpl.nez()),
      rights,
    );
  });
}

function systemSegments(c: Checks, vmcs: VmcsRegion, mode: Mode): void {
  const f = c.f;
  const check = (s: "Tr" | "Ldtr", typeBad: (type: Expr) => Expr) => {
    const name = s.toUpperCase(), low = s.toLowerCase();
    const rights = f.let(vmcs.low(`guest${s}AccessRights`));
    const selector = vmcs.low(`guest${s}Selector`), limit = vmcs.low(`guest${s}Limit`);
    const bad = (part: string, text: string, condition: Expr, shown: Expr = rights) =>
      c.fail(`${low}.${part}`, `guest ${name}: ${text} ({a})`, condition, shown);
    const usable = () => {
      bad("ti", "the selector has TI set", selector.and(4).nez(), selector);
      bad("type", "the type does not fit", typeBad(rights.and(15)));
      bad("system", "S is 1", rights.and(0x10).nez());
      bad("present", "P is 0", rights.and(0x80).eqz());
      bad("reserved", "reserved bits are set", rights.and(RIGHTS_RESERVED).nez());
      bad("granularity", "the limit does not fit granularity", granularity(limit, rights), limit);
      canonical(c, vmcs, `guest${s}Base`);
    };
    if (s === "Ldtr") return f.if(rights.and(UNUSABLE).eqz(), usable);
    bad("unusable", "unusable", rights.and(UNUSABLE).nez());
    usable();
  };
  check("Tr", (type) => type.ne(11).and(mode.ia32e.or(type.ne(3))));
  check("Ldtr", (type) => type.ne(2));
}

function tables(c: Checks, vmcs: VmcsRegion): void {
  for (const s of ["Gdtr", "Idtr"]) {
    canonical(c, vmcs, `guest${s}Base`);
    const limit = vmcs.low(`guest${s}Limit`);
    c.fail(
      `${s.toLowerCase()}.limit`,
      `guest ${s.toUpperCase()} limit {a} is wider than 16 bits`,
      limit.shrU(16).nez(),
      limit,
    );
  }
}

function linkPointer(c: Checks, vmcs: VmcsRegion): void {
  const f = c.f;
  const link = f.let(vmcs.get("vmcsLinkPointer"));
  f.if(link.ne(-1), () => {
    const bad = f.let(link.and(0xfff).nez().or(tooWide(link)).or(link.eq(cell64(CPU.vmcsPointer))));
    f.if(bad.eqz(), () => {
      f.set(bad, 1);
      f.if(link.leU(cell64(V.ramSize).sub(4096)), () => {
        const revision = load("i32", 32, "u", link.wrap(), HEAD.revision, MEMORY.ram);
        f.set(bad, revision.ne(VMCS_REVISION));
      });
    });
    c.fail(
      "linkPointer",
      "VMCS link pointer {a} is neither all ones nor another VMCS",
      bad,
      link,
      i64(0),
      1 + 4,
    );
  });
}

/** `vmxCheckGuest() -> 0, or 1 + qualification`: what does not change from entry to entry. */
function buildGuest(m: Module): void {
  m.func("vmxCheckGuest", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    const c = new Checks(f, "vmx.guest", "SDM 3 26.3.1");
    const mode = modeOf(f, vmcs);
    controlRegisters(c, vmcs, mode);
    stack(c, vmcs, mode);
    for (const s of ["Cs", "Ss", "Ds", "Es", "Fs", "Gs"]) {
      f.scope(() => codeOrData(c, vmcs, mode, s));
    }
    systemSegments(c, vmcs, mode);
    tables(c, vmcs);
    linkPointer(c, vmcs);
    f.result(0);
  });
}

/** Bits 63:48 are the same; bit 47 is not looked at, so RIP may lie behind the lower half (26.3.1.4). */
const ripFits = (rip: Expr): Expr => rip.shrS(48).add(1).leU(1);

function flags(c: Checks, vmcs: VmcsRegion, rflags: Local): void {
  const f = c.f;
  const ia32e = f.let(vmcs.low("entryControls").shrU(9).and(1));
  const rip = vmcs.get("guestRip");
  const long = ia32e.and(vmcs.low("guestCsAccessRights").shrU(13));
  f.if(long, () => {
    c.fail("rip", "guest RIP {a}: bits 63:48 are not all the same", ripFits(rip).eqz(), rip);
  }, () => {
    c.fail("ripWide", "guest RIP {a} is wider than 32 bits", rip.shrU(32).nez(), rip);
  });
  c.fail(
    "rflags",
    "guest RFLAGS {a}: reserved bits 63:22, 15, 5 and 3 must be 0, bit 1 must be 1",
    rflags.and(0xffff_ffff_ffc0_8028n).nez().or(rflags.and(RFLAGS.fixed).eqz()),
    rflags,
  );
  c.fail(
    "rflags.vm",
    "guest RFLAGS {a} has VM set outside protected mode or in IA-32e mode",
    rflags.wrap().and(VM).nez().and(ia32e.or(vmcs.low("guestCr0").and(PE).eqz())),
    rflags,
  );
}

function nonRegister(c: Checks, vmcs: VmcsRegion, rflags: Local): void {
  const activity = c.f.let(vmcs.low("guestActivity"));
  const blocked = c.f.let(vmcs.low("guestInterruptibility"));
  const pending = c.f.let(vmcs.get("guestPendingDebug"));
  const ssDpl = vmcs.low("guestSsAccessRights").and(0x60);
  const { sti, movSs, smi } = INTERRUPTIBILITY;
  c.fail("activity", "guest activity state {a} does not exist", activity.gtU(3), activity);
  c.fail("activity.hlt", "guest in HLT with SS.DPL {a}", activity.eq(1).and(ssDpl.nez()), ssDpl);
  c.fail(
    "activity.blocked",
    "guest activity state {a} with blocking by STI or MOV SS ({b})",
    activity.nez().and(blocked.and(sti | movSs).nez()),
    activity,
    blocked,
  );
  c.fail(
    "interruptibility",
    "guest interruptibility state {a} has reserved bits set",
    blocked.and(~0xf).nez(),
    blocked,
  );
  c.fail(
    "interruptibility.both",
    "guest interruptibility state {a} blocks by STI and by MOV SS",
    blocked.and(3).eq(3),
    blocked,
  );
  c.fail(
    "interruptibility.sti",
    "guest interruptibility state {a} blocks by STI with RFLAGS.IF 0",
    blocked.and(sti).nez().and(rflags.wrap().and(IF).eqz()),
    blocked,
  );
  c.fail(
    "interruptibility.smi",
    "guest interruptibility state {a} blocks by SMI outside SMM",
    blocked.and(smi).nez(),
    blocked,
  );
  c.fail(
    "pendingDebug",
    "guest pending debug exceptions {a} have reserved bits set",
    pending.and(~0x500fn).nez(),
    pending,
  );
  const step = rflags.wrap().and(TF).nez().and(vmcs.low("guestDebugctl").and(DEBUGCTL.BTF).eqz());
  c.fail(
    "pendingDebug.bs",
    "guest pending debug exceptions {a}: BS does not fit RFLAGS.TF ({b}) and DEBUGCTL.BTF",
    blocked.and(sti | movSs).or(activity.eq(1)).nez().and(
      pending.shrU(14).wrap().and(1).ne(step),
    ),
    pending,
    rflags,
  );
}

/** `vmxCheckLight() -> 0, or 1 + qualification`: RIP, RFLAGS and what is not a register. */
function buildLight(m: Module): void {
  m.func("vmxCheckLight", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    const c = new Checks(f, "vmx.guest", "SDM 3 26.3.1.4");
    const rflags = f.let(vmcs.get("guestRflags"));
    flags(c, vmcs, rflags);
    nonRegister(c, vmcs, rflags);
    f.result(0);
  });
}

/** `vmxCheckInjectionState() -> 0, or 1 + qualification`: whether the guest can take the event. */
function buildInjectionState(m: Module): void {
  m.func("vmxCheckInjectionState", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    const c = new Checks(f, "vmx.guest.inject", "SDM 3 26.3.1.5");
    const info = f.let(vmcs.low("entryInterruptionInformation"));
    const type = f.let(info.shrU(8).and(7)), vector = f.let(info.and(0xff));
    const activity = f.let(vmcs.low("guestActivity"));
    const blocked = f.let(vmcs.low("guestInterruptibility"));
    const rflags = vmcs.low("guestRflags");
    const bad = (name: string, text: string, condition: Expr, shown: Expr) =>
      c.fail(name, `${text} (interruption information {b})`, condition, shown, info);
    bad(
      "if",
      "an external interrupt into a guest with RFLAGS.IF 0: {a}",
      type.eqz().and(rflags.and(IF).eqz()),
      rflags,
    );
    bad(
      "blocked",
      "an external interrupt into a guest that blocks by STI or MOV SS: {a}",
      type.eqz().and(blocked.and(3).nez()),
      blocked,
    );
    bad(
      "nmiBlocked",
      "an NMI into a guest that blocks by MOV SS: {a}",
      type.eq(EVENT_TYPE.nmi).and(blocked.and(2).nez()),
      blocked,
    );
    bad(
      "virtualNmi",
      "an NMI into a guest with virtual-NMI blocking: {a}",
      type.eq(EVENT_TYPE.nmi).and(blocked.and(8).nez()).and(
        vmcs.low("pinBasedControls").and(0x20).nez(),
      ),
      blocked,
    );
    const fatal = type.eq(EVENT_TYPE.nmi).or(
      type.eq(EVENT_TYPE.hardwareException).and(vector.eq(VECTOR.MC)),
    );
    const fitsHlt = type.eqz().or(fatal).or(
      type.eq(EVENT_TYPE.hardwareException).and(vector.eq(VECTOR.DB)),
    ).or(type.eq(EVENT_TYPE.other));
    bad(
      "activity",
      "an event that activity state {a} does not let in",
      activity.eq(1).and(fitsHlt.eqz()).or(activity.eq(2).and(fatal.eqz())).or(activity.eq(3)),
      activity,
    );
    f.result(0);
  });
}

/**
 * `vmxCheckPdptes(at) -> 0, or 1 + qualification`: the four entries at `at` in machine memory
 * (26.3.1.6). Where there is no memory they are all ones.
 */
function buildPdptes(m: Module): void {
  m.func("vmxCheckPdptes", ["i32"], ["i32"], (f, at) => {
    const c = new Checks(f, "vmx.guest", "SDM 3 26.3.1.6");
    const fail = (n: number, bad: Expr, entry: Expr) =>
      c.fail(
        `pdpte${n}`,
        `guest PDPTE${n} {a} has reserved bits set`,
        bad,
        entry,
        i64(0),
        1 + 2,
      );
    fail(0, at.zext().geU(cell64(V.ramSize)), i64(-1));
    for (let n = 0; n < 4; n++) {
      const entry = load("i64", 64, "u", at, 8 * n, MEMORY.ram);
      const reserved = entry.and(PDPTE_RESERVED).nez().or(tooWide(entry));
      fail(n, entry.wrap().and(1).and(reserved), entry);
    }
    f.result(0);
  });
}

export function buildGuestChecks(m: Module): void {
  buildGuest(m);
  buildLight(m);
  buildInjectionState(m);
  buildPdptes(m);
}
