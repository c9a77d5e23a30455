/**
 * What the assembly of a hypervisor does around VM entry and exit, for a root written in TypeScript:
 * general registers to and from a save area, VMRESUME, and the VMREADs that every exit needs. Each
 * is a sequence of VMX instructions; they stand here because calls from TypeScript cost more than
 * the instructions do.
 */
import { atBit } from "../mode.ts";
import { DEBUGCTL, DR6 } from "../../abi/x86/cr.ts";
import { setCell, setCell64 } from "../linkage.ts";
import type { Module } from "../wasm/module.ts";
import { buildGprs, markDirty } from "../values.ts";
import { STUB, VmcsRegion, VMXC } from "./layout.ts";

export function buildStub(m: Module): void {
  buildGprs(m);
  // readExit(): the fields of STUB.
  m.func("readExit", [], [], (f) => {
    const vmcs = VmcsRegion.current(f);
    setCell(f, VMXC.stub + STUB.reason, vmcs.low("exitReason"));
    setCell(f, VMXC.stub + STUB.length, vmcs.low("exitInstructionLength"));
    setCell(f, VMXC.stub + STUB.vectoring, vmcs.low("idtVectoringInformation"));
    setCell(f, VMXC.stub + STUB.interruption, vmcs.low("exitInterruptionInformation"));
    setCell64(f, VMXC.stub + STUB.qualification, vmcs.get("exitQualification"));
  });
  // enterGuest(area, launch) -> status of vmentry; RSP is the VMCS's own.
  m.func("enterGuest", ["i32", "i32"], ["i32"], (f, area, launch) => {
    f.call("loadGprs", area);
    const status = f.call("vmentry", launch);
    f.if(status.eq(3), () => {
      f.call("storeGprs", area);
      f.call("readExit");
    });
    f.result(status);
  });
  // leaveGuest(area): the VM exit that is due, then the registers and the exit fields.
  m.func("leaveGuest", ["i32"], [], (f, area) => {
    f.call("vmexit");
    f.call("storeGprs", area);
    f.call("readExit");
  });
  buildAdvance(m);
}

/** `advanceGuest(length)`: past the instruction that left. */
function buildAdvance(m: Module): void {
  m.func("advanceGuest", ["i32"], [], (f, length) => {
    const vmcs = VmcsRegion.current(f);
    const old = f.let(vmcs.get("guestRip")), now = f.let(old.add(length.zext()));
    const long = vmcs.low("entryControls").shrU(9).and(vmcs.low("guestCsAccessRights").shrU(13));
    // Outside 64-bit mode the instruction pointer has 32 bits.
    f.if(long.and(1).eqz(), () => f.set(now, now.and(0xffff_ffffn)));
    // What entry checks of RIP, shadows and pending traps holds still, behind the lower half too.
    vmcs.set("guestRip", now);
    // STI and MOV SS shadows end with the instruction; a traced one leaves its trap.
    const blocked = f.let(vmcs.low("guestInterruptibility"));
    f.if(blocked.and(3), () => vmcs.set("guestInterruptibility", blocked.and(~3)));
    const toBranch = atBit(vmcs.low("guestDebugctl"), DEBUGCTL.BTF).and(1);
    f.if(vmcs.low("guestRflags").shrU(8).and(toBranch.eqz()), () => {
      vmcs.set("guestPendingDebug", vmcs.get("guestPendingDebug").or(DR6.BS));
    });
    markDirty(f, vmcs.base);
  });
}
