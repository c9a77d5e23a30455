/**
 * VM entry (SDM 3 chapter 26): `vmentry(launch) -> status`. Checks that the current VMCS has passed
 * are not made again until a field they look at is written (VMXC.passed).
 */
import { atBit } from "../mode.ts";
import { CR0, CR4, DR6, DR7, EFER } from "../../abi/x86/cr.ts";
import {
  ENTRY_CONTROL,
  EXIT_REASON,
  PIN,
  PRIMARY,
  SECONDARY,
  VM_ERROR,
} from "../../abi/x86/vmx.ts";
import { EVENT_TYPE } from "../../abi/x86/vectors.ts";
import { ABORT, CPU, INTERRUPTIBILITY, pdpte, V } from "../state.ts";
import { cell, cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { i32, i64, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { secondaryOf } from "./checks_controls.ts";
import { CR0_KEPT, GUEST_REGISTERS, regionBlock } from "./exit.ts";
import { BLOCK, fieldOffset, GROUP, HEAD, VmcsRegion, VMXC } from "./layout.ts";
import { MODE, STATUS } from "./operations.ts";
import { copyBlock, deliverInjected, markDirty } from "../values.ts";

/** What `vmentry` gives besides STATUS: the guest was left again at once; the VMCS says why. */
const ENTERED = STATUS.succeed;
export const LEFT_AT_ONCE = 3;

const fail = (f: Func, error: number) => f.return(f.call("vmxFail", i32(error), i64(0)));

/** 26.1 and 26.2: leaves with VMfail. */
function checkBefore(f: Func, vmcs: VmcsRegion, launch: Local, passed: Local, valid: Local): void {
  f.if(
    cell(CPU.interruptibility).and(INTERRUPTIBILITY.movSs),
    () => fail(f, VM_ERROR.blockedByMovSs),
  );
  const launched = f.let(vmcs.head(HEAD.launched));
  f.if(launch, () => f.if(launched, () => fail(f, VM_ERROR.vmlaunchNotClear)), () => {
    f.if(launched.eqz(), () => fail(f, VM_ERROR.vmresumeNotLaunched));
  });
  const failed = (error: number) => {
    // vmxFail notes its own number; the check that failed says more.
    const id = f.let(cell(V.check)), a = f.let(cell64(V.checkA)), b = f.let(cell64(V.checkB));
    const status = f.call("vmxFail", i32(error), i64(0));
    f.call("vmxNote", id, a, b);
    f.return(status);
  };
  const check = (name: string, error: number) => f.if(f.call(name), () => failed(error));
  f.if(passed.and(GROUP.controls).eqz(), () => check("vmxCheckControls", VM_ERROR.controls));
  f.if(vmcs.low("processorBasedControls").and(PRIMARY.tprShadow), () => {
    check("vmxCheckTpr", VM_ERROR.controls);
  });
  f.if(valid, () => check("vmxCheckInjection", VM_ERROR.controls));
  f.if(passed.and(GROUP.host).eqz(), () => {
    check("vmxCheckHost", VM_ERROR.host);
    setCell(f, VMXC.hostBlockOf, -1);
  });
  f.if(cell(VMXC.hostBlockOf).ne(vmcs.base), () => {
    f.call("vmxHostBlock");
    setCell(f, VMXC.hostBlockOf, vmcs.base);
  });
}

/** Leaves by a failed VM entry: reason 33 and a qualification. */
function checkState(f: Func, passed: Local, valid: Local): void {
  const check = (name: string) => {
    const failed = f.call(name);
    f.if(failed, () => {
      f.call("vmxEntryFailure", i32(EXIT_REASON.guestState), failed.sub(1).zext());
      f.return(i32(LEFT_AT_ONCE));
    });
  };
  f.if(passed.and(GROUP.guest).eqz(), () => check("vmxCheckGuest"));
  f.if(passed.and(GROUP.light).eqz(), () => check("vmxCheckLight"));
  f.if(valid, () => check("vmxCheckInjectionState"));
}

/** PAE paging without IA-32e mode: PDPTEs from the VMCS with EPT, else from memory (26.3.2.4). */
function loadPdptes(f: Func, vmcs: VmcsRegion, ept: Local): void {
  const pae = vmcs.low("guestCr4").and(CR4.PAE).nez().and(atBit(vmcs.low("guestCr0"), CR0.PG));
  f.if(pae.and(vmcs.low("entryControls").and(ENTRY_CONTROL.ia32eGuest).eqz()), () => {
    const at = f.let(vmcs.base.add(fieldOffset("guestPdpte0")));
    f.if(ept.eqz(), () => f.set(at, vmcs.low("guestCr3").and(~31)));
    const bad = f.call("vmxCheckPdptes", at);
    f.if(bad, () => {
      f.call("vmxEntryFailure", i32(EXIT_REASON.guestState), bad.sub(1).zext());
      f.return(i32(LEFT_AT_ONCE));
    });
    for (let n = 0; n < 4; n++) {
      setCell64(f, pdpte(n), load("i64", 64, "u", at, 8 * n, MEMORY.ram));
    }
  });
}

/** 26.3.2: the guest's registers. */
function loadGuest(f: Func, vmcs: VmcsRegion, secondary: Local): void {
  const cpu = { base: i32(0), offset: BLOCK.cpu, memory: MEMORY.cpu };
  copyBlock(f, cpu, regionBlock(vmcs), BLOCK.size);
  const kept = f.let(cell64(CPU.cr0).and(CR0_KEPT));
  for (const [field, own] of GUEST_REGISTERS) setCell64(f, CPU[own], vmcs.get(field));
  setCell64(f, CPU.cr0, cell64(CPU.cr0).and(~CR0_KEPT).or(kept).or(CR0.ET));
  setCell64(f, CPU.sysenterCs, vmcs.low("guestSysenterCs").zext());
  setCell(f, CPU.flagOp, 0);
  setCell64(f, CPU.rflags, vmcs.get("guestRflags"));
  setCell(f, CPU.activity, vmcs.low("guestActivity"));
  setCell(f, CPU.interruptibility, vmcs.low("guestInterruptibility"));
  setCell64(f, CPU.pendingDebug, vmcs.get("guestPendingDebug").and(DR6.BS | DR6.breakpoints));
  const entry = f.let(vmcs.low("entryControls"));
  f.if(entry.and(ENTRY_CONTROL.loadDebug), () => {
    setCell64(f, CPU.dr7, vmcs.get("guestDr7").and(0xffff_2fff).or(DR7.fixed));
    setCell64(f, CPU.debugctl, vmcs.get("guestDebugctl"));
  });
  f.if(entry.and(ENTRY_CONTROL.loadPat), () => setCell64(f, CPU.pat, vmcs.get("guestPat")));
  f.if(
    entry.and(ENTRY_CONTROL.loadEfer),
    () => setCell64(f, CPU.efer, vmcs.get("guestEfer")),
    () => {
      const long = entry.and(ENTRY_CONTROL.ia32eGuest).shl(1).zext();
      const efer = f.let(cell64(CPU.efer).and(~BigInt(EFER.LMA)).or(long));
      // LME follows only under paging.
      f.if(atBit(cell64(CPU.cr0), CR0.PG).wrap().and(1), () => {
        f.set(efer, efer.and(~BigInt(EFER.LME)).or(long.shrU(2)));
      });
      setCell64(f, CPU.efer, efer);
    },
  );
  const primary = vmcs.low("processorBasedControls");
  setCell64(
    f,
    CPU.tscOffset,
    vmcs.get("tscOffset").when(primary.and(PRIMARY.tscOffsetting), i64(0)),
  );
  setCell64(
    f,
    V.eptp,
    vmcs.get("eptPointer").when(secondary.and(SECONDARY.ept), i64(0)),
  );
  f.if(vmcs.low("pinBasedControls").and(PIN.preemptionTimer), () => {
    f.call("vmxTimerSet", vmcs.low("preemptionTimer"));
  });
}

/** 26.5: the event to be injected goes through the guest's IDT; its own exit controls do not count. */
function buildInject(m: Module): void {
  m.func("vmxInject", [], [], (f) => {
    const vmcs = VmcsRegion.current(f);
    const info = f.let(vmcs.low("entryInterruptionInformation"));
    const type = f.let(info.shrU(8).and(7));
    setCell(f, VMXC.trapDue, vmcs.low("processorBasedControls").and(PRIMARY.monitorTrapFlag));
    f.if(type.eq(EVENT_TYPE.other), () => {
      setCell(f, VMXC.trapDue, 1);
      f.return();
    });
    f.call("refresh");
    setCell(f, V.vector, info.and(0xff));
    setCell(f, V.eventType, type);
    setCell(f, V.hasError, info.shrU(11).and(1));
    setCell(f, V.errorCode, vmcs.low("entryExceptionErrorCode"));
    setCell(f, V.length, vmcs.low("entryInstructionLength"));
    setCell(f, V.check, 0);
    // Injection does not touch CR2, DR6 and DR7.
    setCell64(f, V.faultAddress, cell64(CPU.cr2));
    const kept = [CPU.dr6, CPU.dr7, CPU.debugctl, CPU.pendingDebug].map((at) =>
      [at, f.let(cell64(at))] as const
    );
    setCell(f, VMXC.injecting, 1);
    deliverInjected(f);
    setCell(f, VMXC.injecting, 0);
    f.if(type.eq(EVENT_TYPE.hardwareException).and(info.and(0xff).eq(1)), () => {
      for (const [at, value] of kept) setCell64(f, at, value);
    });
  });
}

function buildVmentry(m: Module): void {
  m.func("vmentry", ["i32"], ["i32"], (f, launch) => {
    f.if(cell64(CPU.vmcsPointer).eq(-1), () => fail(f, VM_ERROR.vmresumeNotLaunched));
    const vmcs = VmcsRegion.current(f);
    const passed = f.let(cell(VMXC.passed));
    const info = f.let(vmcs.low("entryInterruptionInformation"));
    const valid = f.let(info.shrU(31));
    checkBefore(f, vmcs, launch, passed, valid);
    checkState(f, passed, valid);
    const secondary = f.let(secondaryOf(vmcs));
    loadPdptes(f, vmcs, f.let(secondary.and(SECONDARY.ept)));
    setCell(f, VMXC.passed, 15);
    loadGuest(f, vmcs, secondary);
    setCell(f, V.abort, ABORT.none);
    setCell(f, V.vectoring, 0);
    setCell(f, VMXC.trapDue, 0);
    f.if(vmcs.low("entryMsrLoadCount"), () => {
      const count = vmcs.low("entryMsrLoadCount");
      const bad = f.call("vmxLoadMsrs", vmcs.get("entryMsrLoadAddress"), count);
      f.if(bad, () => {
        f.call("vmxEntryFailure", i32(EXIT_REASON.msrLoading), bad.zext());
        f.return(i32(LEFT_AT_ONCE));
      });
    });
    f.if(launch, () => {
      vmcs.setHead(HEAD.launched, 1);
      markDirty(f, vmcs.base);
    });
    setCell(f, V.nonRoot, 1);
    setCell(f, CPU.vmxMode, MODE.nonRoot);
    setCell(f, VMXC.entries, cell(VMXC.entries).add(1));
    f.call("vmxContextSwitch");
    f.if(valid, () => f.call("vmxInject"));
    f.if(cell(V.abort).eqz(), () => f.call("vmxBoundary"));
    f.if(cell(V.abort).eq(ABORT.exit), () => {
      f.call("vmexit");
      f.return(i32(LEFT_AT_ONCE));
    });
    f.result(ENTERED);
  });
}

export function buildEntry(m: Module): void {
  buildInject(m);
  buildVmentry(m);
}
