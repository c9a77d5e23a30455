/**
 * VM exit (SDM 3 chapter 27): `vmexit()` makes the exit that V.abort = ABORT.exit announces; CPU.rip
 * is that of the instruction or event boundary. Afterwards the processor is in VMX root operation
 * with the host state loaded; who asks learns the rest by VMREAD.
 */
import { CR0, CR4, DEBUGCTL, DR6, DR7, EFER, RFLAGS } from "../../abi/x86/cr.ts";
import {
  ENTRY_FAILURE,
  EVENT,
  EXIT_CONTROL,
  EXIT_REASON,
  PIN,
  SECONDARY,
} from "../../abi/x86/vmx.ts";
import { ABORT, ACTIVITY, CPU, pdpte, SEGMENT, SEGMENT_SIZE, SHADOW, V } from "../state.ts";
import { atBit, longMode } from "../mode.ts";
import { cell, cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { copyBlock, markDirty } from "../values.ts";
import { secondaryOf } from "./checks_controls.ts";
import { BLOCK, HEAD, VmcsRegion, VMXC } from "./layout.ts";
import { MODE } from "./operations.ts";

const LMA_LME = BigInt(EFER.LMA | EFER.LME);

/** Reasons after which RFLAGS.RF stays as it is: events and boundaries, not instructions. */
const KEEPS_RF = [
  EXIT_REASON.exception,
  EXIT_REASON.externalInterrupt,
  EXIT_REASON.tripleFault,
  EXIT_REASON.interruptWindow,
  EXIT_REASON.nmiWindow,
  EXIT_REASON.monitorTrapFlag,
  EXIT_REASON.tprBelowThreshold,
  EXIT_REASON.preemptionTimer,
];

function savedFlags(f: Func, reason: Local): Local {
  const flags = f.let(cell64(CPU.rflags));
  const keeps = KEEPS_RF.map((n) => reason.eq(n)).reduce((a, b) => a.or(b));
  const nested = reason.eq(EXIT_REASON.eptViolation).or(reason.eq(EXIT_REASON.eptMisconfiguration));
  f.if(nested, () => {
    f.if(cell(V.vectoring).eqz(), () => f.set(flags, flags.or(RFLAGS.RF)));
  }, () => {
    f.if(keeps.eqz(), () => f.set(flags, flags.and(~BigInt(RFLAGS.RF))));
  });
  return flags;
}

/** VM-exit information fields (27.2). */
function saveInformation(f: Func, vmcs: VmcsRegion, reason: Local): void {
  vmcs.set("exitReason", reason);
  vmcs.set("exitQualification", cell64(V.exitQualification));
  vmcs.set("guestLinearAddress", cell64(V.exitGuestLinear));
  vmcs.set("guestPhysicalAddress", cell64(V.exitGuestPhysical));
  vmcs.set("exitInterruptionInformation", cell(VMXC.event));
  vmcs.set("exitInterruptionErrorCode", cell(VMXC.eventCode));
  vmcs.set("exitInstructionInformation", cell(V.exitInstructionInfo));
  const vectoring = f.let(cell(V.vectoring)), length = f.let(cell(V.exitInstructionLength));
  f.if(vectoring, () => {
    vmcs.set("idtVectoringErrorCode", cell(V.vectoringError));
    f.if(vectoring.shrU(8).and(7).geU(4), () => f.set(length, cell(V.vectoringLength)));
    setCell(f, V.vectoring, 0);
  });
  vmcs.set("idtVectoringInformation", vectoring);
  vmcs.set("exitInstructionLength", length);
  const injection = vmcs.low("entryInterruptionInformation");
  vmcs.set("entryInterruptionInformation", injection.and(0x7fff_ffff));
  for (const at of [VMXC.event, VMXC.eventCode, V.exitInstructionInfo, V.exitInstructionLength]) {
    setCell(f, at, 0);
  }
  for (const at of [V.exitQualification, V.exitGuestLinear, V.exitGuestPhysical]) {
    setCell64(f, at, 0);
  }
}

/** 27.2.3: NMI unblocking due to IRET; not told of a double fault, nor in the course of delivery. */
function noteUnblocking(f: Func, reason: Local): void {
  f.if(f.call("vmxUnblocked").and(cell(V.vectoring).eqz()), () => {
    const event = f.let(cell(VMXC.event));
    f.if(reason.eq(EXIT_REASON.exception).and(event.and(0x7ff).ne(0x308)), () => {
      setCell(f, VMXC.event, event.or(EVENT.nmiUnblocking));
    });
    f.if(reason.eq(EXIT_REASON.eptViolation), () => {
      setCell64(f, V.exitQualification, cell64(V.exitQualification).or(EVENT.nmiUnblocking));
    });
  });
}

const ownBlock = { base: i32(0), offset: BLOCK.cpu, memory: MEMORY.cpu };
export const regionBlock = (vmcs: VmcsRegion) => ({
  base: vmcs.base,
  offset: BLOCK.start,
  memory: MEMORY.ram,
});

/** 27.3.1: in PAE paging with EPT. Else the fields are undefined: here they stay as they are. */
function savePdptes(f: Func, vmcs: VmcsRegion): void {
  const pae = cell(CPU.cr4).and(CR4.PAE).nez().and(atBit(cell(CPU.cr0), CR0.PG)).and(
    longMode().eqz(),
  );
  f.if(secondaryOf(vmcs).and(SECONDARY.ept).nez().and(pae), () => {
    for (let n = 0; n < 4; n++) vmcs.set(`guestPdpte${n}`, cell64(pdpte(n)));
  });
}

/** 27.3: the guest-state area. */
function saveGuest(f: Func, vmcs: VmcsRegion, reason: Local, controls: Local): void {
  f.if(cell(CPU.flagOp), () => f.call("materialize"));
  vmcs.set("guestRflags", savedFlags(f, reason));
  copyBlock(f, regionBlock(vmcs), ownBlock, BLOCK.size);
  savePdptes(f, vmcs);
  for (const [field, own] of GUEST_REGISTERS) vmcs.set(field, cell64(CPU[own]));
  vmcs.set("guestSysenterCs", cell(CPU.sysenterCs));
  vmcs.set("guestActivity", cell(CPU.activity));
  vmcs.set("guestInterruptibility", cell(CPU.interruptibility).and(0xf));
  const pending = f.let(cell64(CPU.pendingDebug).and(DR6.BS | DR6.breakpoints));
  // A trap that MOV SS holds back is pending all the same (26.3.1.5); with BTF there is none.
  const shadow = cell(CPU.interruptibility).and(SHADOW), traced = cell(CPU.rflags).and(RFLAGS.TF);
  f.if(shadow.nez().and(traced.nez()), () => {
    const trap = i64(0).when(cell64(CPU.debugctl).and(DEBUGCTL.BTF).nez(), i64(DR6.BS));
    f.set(pending, pending.and(~BigInt(DR6.BS)).or(trap));
  });
  f.if(pending.nez(), () => {
    f.set(pending, pending.or(pending.and(15).nez().zext().shl(12)));
    setCell64(f, CPU.pendingDebug, 0);
  });
  vmcs.set("guestPendingDebug", pending);
  f.if(controls.and(EXIT_CONTROL.saveDebug), () => {
    vmcs.set("guestDr7", cell64(CPU.dr7));
    vmcs.set("guestDebugctl", cell64(CPU.debugctl));
  });
  f.if(controls.and(EXIT_CONTROL.savePat), () => vmcs.set("guestPat", cell64(CPU.pat)));
  f.if(controls.and(EXIT_CONTROL.saveEfer), () => vmcs.set("guestEfer", cell64(CPU.efer)));
  f.if(controls.and(EXIT_CONTROL.savePreemptionTimer), () => {
    vmcs.set("preemptionTimer", f.call("vmxTimerValue"));
  });
  // The mode the guest is in: LMA, as the IA-32e mode guest control of the next entry.
  const entry = vmcs.low("entryControls");
  const long = atBit(cell64(CPU.efer), EFER.LMA).wrap().and(1).shl(9);
  vmcs.set("entryControls", entry.and(~0x200).or(long));
}

/** Natural-width guest fields and where the processor keeps them. */
export const GUEST_REGISTERS = [
  ["guestRip", "rip"],
  ["guestRsp", "rsp"],
  ["guestCr0", "cr0"],
  ["guestCr3", "cr3"],
  ["guestCr4", "cr4"],
  ["guestSysenterEsp", "sysenterEsp"],
  ["guestSysenterEip", "sysenterEip"],
] as const;

/** Bits of CR0 that a transition leaves alone: NW and CD; ET is always 1. */
export const CR0_KEPT = BigInt(CR0.NW | CR0.CD);

/** 27.5.1: control registers and MSRs of the host. */
function loadHostRegisters(f: Func, vmcs: VmcsRegion, controls: Local): void {
  const cr0 = vmcs.get("hostCr0").and(~CR0_KEPT).or(cell64(CPU.cr0).and(CR0_KEPT)).or(CR0.ET);
  setCell64(f, CPU.cr0, cr0);
  setCell64(f, CPU.cr3, vmcs.get("hostCr3"));
  const cr4 = f.let(vmcs.get("hostCr4"));
  const wide = f.let(controls.and(EXIT_CONTROL.hostAddressSpace));
  f.if(wide, () => f.set(cr4, cr4.or(CR4.PAE)));
  setCell64(f, CPU.cr4, cr4);
  setCell64(f, CPU.dr7, DR7.fixed);
  setCell64(f, CPU.debugctl, 0);
  setCell64(f, CPU.sysenterCs, vmcs.low("hostSysenterCs").zext());
  setCell64(f, CPU.sysenterEsp, vmcs.get("hostSysenterEsp"));
  setCell64(f, CPU.sysenterEip, vmcs.get("hostSysenterEip"));
  const efer = cell64(CPU.efer).and(~LMA_LME).or(i64(LMA_LME).when(wide, i64(0)));
  setCell64(f, CPU.efer, efer);
  f.if(controls.and(EXIT_CONTROL.loadEfer), () => setCell64(f, CPU.efer, vmcs.get("hostEfer")));
  f.if(controls.and(EXIT_CONTROL.loadPat), () => setCell64(f, CPU.pat, vmcs.get("hostPat")));
  setCell64(f, CPU.rip, vmcs.get("hostRip"));
  setCell64(f, CPU.rsp, vmcs.get("hostRsp"));
  setCell(f, CPU.flagOp, 0);
  setCell64(f, CPU.rflags, 2);
  setCell64(f, CPU.tscOffset, 0);
}

/** Access rights of the host's segments (27.5.2). */
const RIGHTS = {
  code32: 0xc09b,
  code64: 0xa09b,
  data: 0xc093,
  unusable: 0x1_0000,
  task: 0x8b,
} as const;

/** `vmxHostBlock()`: the host's segments and tables from their fields, in the layout of BLOCK. */
function buildHostBlock(m: Module): void {
  m.func("vmxHostBlock", [], [], (f) => {
    const vmcs = VmcsRegion.current(f);
    const wide = f.let(vmcs.low("exitControls").and(EXIT_CONTROL.hostAddressSpace));
    const put = (n: number, selector: Expr, base: Expr, limit: number, rights: Expr) => {
      const at = VMXC.hostBlock + n * SEGMENT_SIZE;
      setCell64(f, at + SEGMENT.base, base);
      setCell(f, at + SEGMENT.limit, limit);
      setCell(f, at + SEGMENT.attributes, rights);
      setCell(f, at + SEGMENT.selector, selector);
    };
    ["Es", "Cs", "Ss", "Ds", "Fs", "Gs"].forEach((s, n) => {
      const selector = f.let(vmcs.low(`host${s}Selector`));
      const based = s === "Fs" || s === "Gs";
      const base = based ? vmcs.get(`host${s}Base`) : i64(0);
      const rights = s === "Cs"
        ? i32(RIGHTS.code64).when(wide, i32(RIGHTS.code32))
        : i32(RIGHTS.data).when(selector, i32(RIGHTS.unusable));
      // A null SS stays usable for a 64-bit host in what counts here: DPL 0.
      put(n, selector, base, -1, rights);
    });
    put(6, i32(0), i64(0), 0, i32(RIGHTS.unusable));
    put(7, vmcs.low("hostTrSelector"), vmcs.get("hostTrBase"), 0x67, i32(RIGHTS.task));
    const table = (offset: number, field: string) => {
      setCell64(f, VMXC.hostBlock + offset - BLOCK.cpu, vmcs.get(field));
      setCell64(f, VMXC.hostBlock + offset + 8 - BLOCK.cpu, 0xffff);
    };
    table(CPU["gdtr.base"], "hostGdtrBase");
    table(CPU["idtr.base"], "hostIdtrBase");
  });
}

/** PAE host: the page-directory pointers come from memory (27.5.4); a bad one is a VMX abort. */
function loadHostPdptes(f: Func, vmcs: VmcsRegion): void {
  const pae = cell64(CPU.cr4).wrap().and(CR4.PAE).nez();
  const legacy = cell64(CPU.efer).and(EFER.LMA).eqz();
  f.if(cell(V.hostedRoot).eqz().and(pae).and(legacy), () => {
    const at = f.let(cell64(CPU.cr3).wrap().and(~31));
    f.if(at.zext().ltU(cell64(V.ramSize)), () => {
      f.if(f.call("vmxCheckPdptes", at), () => vmcs.setHead(HEAD.abort, 2));
      for (let n = 0; n < 4; n++) {
        setCell64(f, pdpte(n), load("i64", 64, "u", at, 8 * n, MEMORY.ram));
      }
    });
  });
}

/** `vmxLoadHost()`: host state; ends VMX non-root operation. */
function buildLoadHost(m: Module): void {
  m.func("vmxLoadHost", [], [], (f) => {
    const vmcs = VmcsRegion.current(f);
    const controls = f.let(vmcs.low("exitControls"));
    setCell(f, V.nonRoot, 0);
    setCell64(f, V.eptp, 0);
    setCell(f, CPU.vmxMode, MODE.root);
    loadHostRegisters(f, vmcs, controls);
    const template = { base: i32(0), offset: VMXC.hostBlock, memory: MEMORY.cpu };
    copyBlock(f, ownBlock, template, BLOCK.size);
    loadHostPdptes(f, vmcs);
    setCell(f, CPU.activity, ACTIVITY.active);
    f.call("vmxContextAfterExit");
    const count = vmcs.low("exitMsrLoadCount");
    f.if(count, () => {
      // Why the guest left, or was not entered, stays what is noted.
      const id = f.let(cell(V.check)), a = f.let(cell64(V.checkA)), b = f.let(cell64(V.checkB));
      const bad = f.call("vmxLoadMsrs", vmcs.get("exitMsrLoadAddress"), count);
      f.if(bad, () => vmcs.setHead(HEAD.abort, 4));
      f.call("vmxNote", id, a, b);
    });
    setCell(f, V.abort, ABORT.none);
    for (const at of [VMXC.trapDue, VMXC.tprDue, VMXC.injecting]) setCell(f, at, 0);
    markDirty(f, vmcs.base);
  });
}

function buildVmexit(m: Module): void {
  m.func("vmexit", [], [], (f) => {
    const vmcs = VmcsRegion.current(f);
    const reason = f.let(cell(V.exitReason)), controls = f.let(vmcs.low("exitControls"));
    const event = f.let(cell(VMXC.event));
    setCell(f, V.abort, ABORT.none);
    f.call("vmxContextNote");
    noteUnblocking(f, reason);
    saveGuest(f, vmcs, reason, controls);
    saveInformation(f, vmcs, reason);
    const stores = vmcs.low("exitMsrStoreCount");
    f.if(stores, () => {
      const bad = f.call("vmxStoreMsrs", vmcs.get("exitMsrStoreAddress"), stores);
      f.if(bad, () => vmcs.setHead(HEAD.abort, 1));
    });
    // NMI blocking is the guest's own with virtual NMIs; an NMI that left blocks the next.
    const isNmi = event.and(0x8000_0700 | 0).eq(0x8000_0200 | 0);
    const virtual = vmcs.low("pinBasedControls").and(PIN.virtualNmis);
    const blocking = cell(CPU.interruptibility).and(i32(0).when(virtual, i32(8)));
    setCell(f, CPU.interruptibility, blocking.or(isNmi.shl(3)));
    f.call("vmxLoadHost");
  });
  // vmxEntryFailure(reason, qualification): nothing of the guest is saved (26.8).
  m.func("vmxEntryFailure", ["i32", "i64"], [], (f, reason, qualification) => {
    const vmcs = VmcsRegion.current(f);
    setCell(f, VMXC.contextValid, 0);
    vmcs.set("exitReason", reason.or(ENTRY_FAILURE | 0));
    vmcs.set("exitQualification", qualification);
    f.call("vmxLoadHost");
  });
}

export function buildExit(m: Module): void {
  buildHostBlock(m);
  buildLoadHost(m);
  buildVmexit(m);
}
