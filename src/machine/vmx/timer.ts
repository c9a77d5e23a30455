/**
 * What ends a guest's run at an instruction boundary: the preemption timer, the monitor trap flag,
 * interrupt and NMI windows, the TPR threshold (SDM 3 25.2, 25.5). The outer loop asks
 * `vmxBudget()` how far it may run, reports by `vmxElapsed(n)` and calls `vmxBoundary()` before it
 * runs on.
 */
import { atBit } from "../mode.ts";
import { RFLAGS } from "../../abi/x86/cr.ts";
import { EXIT_REASON, PIN, PRIMARY } from "../../abi/x86/vmx.ts";
import { ACTIVITY, CPU, SHADOW, V } from "../state.ts";
import { cell, cell64, setCell, setCell64 } from "../linkage.ts";
import { i32, i64 } from "../wasm/expr.ts";
import type { Module } from "../wasm/module.ts";
import { PREEMPTION_RATE } from "./capabilities.ts";
import { VmcsRegion, VMXC } from "./layout.ts";

const WINDOWS = PRIMARY.interruptWindow | PRIMARY.nmiWindow;

export function buildTimer(m: Module): void {
  // The preemption timer as its field shows it.
  m.func("vmxTimerValue", [], ["i32"], (f) => {
    f.result(cell64(VMXC.timer).add((1 << PREEMPTION_RATE) - 1).shrU(PREEMPTION_RATE).wrap());
  });
  m.func("vmxTimerSet", ["i32"], [], (f, value) => {
    setCell64(f, VMXC.timer, value.zext().shl(PREEMPTION_RATE));
  });
  // vmxBudget(limit) -> instructions that may run before vmxBoundary() has to be asked.
  m.func("vmxBudget", ["i32"], ["i32"], (f, limit) => {
    const vmcs = VmcsRegion.current(f);
    const primary = f.let(vmcs.low("processorBasedControls"));
    const shadowed = cell(CPU.interruptibility).and(SHADOW).nez().and(primary.and(WINDOWS).nez());
    f.if(primary.and(PRIMARY.monitorTrapFlag).nez().or(shadowed), () => f.return(i32(1)));
    f.if(vmcs.low("pinBasedControls").and(PIN.preemptionTimer), () => {
      const left = f.let(cell64(VMXC.timer));
      f.if(left.ltU(limit.zext()), () => f.return(left.wrap()));
    });
    f.result(limit);
  });
  // vmxElapsed(n): n instructions have run in the guest.
  m.func("vmxElapsed", ["i32"], [], (f, n) => {
    f.if(n.eqz(), () => f.return());
    const vmcs = VmcsRegion.current(f);
    f.if(vmcs.low("processorBasedControls").and(PRIMARY.monitorTrapFlag), () => {
      setCell(f, VMXC.trapDue, 1);
    });
    f.if(vmcs.low("pinBasedControls").and(PIN.preemptionTimer), () => {
      const left = f.let(cell64(VMXC.timer)), run = n.zext();
      setCell64(f, VMXC.timer, i64(0).when(left.leU(run), left.sub(run)));
    });
  });
  // vmxBoundary() -> 1 if the guest leaves here; V.abort is set then.
  m.func("vmxBoundary", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    const primary = f.let(vmcs.low("processorBasedControls"));
    const pin = f.let(vmcs.low("pinBasedControls"));
    const exit = (reason: number) => {
      setCell(f, V.length, 0);
      f.call("vmxLeave", i32(reason), i64(0));
      f.return(i32(1));
    };
    f.if(cell(VMXC.tprDue), () => {
      setCell(f, VMXC.tprDue, 0);
      exit(EXIT_REASON.tprBelowThreshold);
    });
    f.if(cell(VMXC.trapDue), () => exit(EXIT_REASON.monitorTrapFlag));
    f.if(pin.and(PIN.preemptionTimer), () => {
      f.if(cell64(VMXC.timer).eqz(), () => exit(EXIT_REASON.preemptionTimer));
    });
    const blocked = f.let(cell(CPU.interruptibility));
    // Both windows wake a halted guest, not one that is shut down.
    const awake = f.let(cell(CPU.activity).leU(ACTIVITY.hlt));
    f.if(primary.and(PRIMARY.nmiWindow), () => {
      f.if(awake.and(blocked.and(0xb).eqz()), () => exit(EXIT_REASON.nmiWindow));
    });
    f.if(primary.and(PRIMARY.interruptWindow), () => {
      const open = blocked.and(3).eqz().and(atBit(cell(CPU.rflags), RFLAGS.IF)).and(1);
      f.if(awake.and(open), () => exit(EXIT_REASON.interruptWindow));
    });
    f.result(0);
  });
}
