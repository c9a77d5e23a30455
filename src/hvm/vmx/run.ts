/** Running a guest: entry, the processor's run loop, and the way back. */
import { RFLAGS } from "../../abi/x86/cr.ts";
import type { RunStop } from "../../machine/run.ts";
import { GUEST } from "../../machine/interpreter/guest.ts";
import { CPU, V } from "../../machine/state.ts";
import { LEFT_AT_ONCE } from "../../machine/vmx/entry.ts";
import type { EnterOptions } from "../ops.ts";
import { F, type VmxVcpu } from "./cpu.ts";

/** Bit of CPU.pendingDebug, as in DR6: BT. */
const TASK_TRAP = 0x8000;

/** How an entry ended: "exit" and "refused" are told by the VMCS, the rest by their name. */
export type Outcome = "refused" | RunStop;

/** Tells the processor's VMX how many instructions have run since the last report. */
function report(v: VmxVcpu): void {
  const { count } = v.on.cpu, ran = count - v.reported;
  v.reported = count;
  if (ran > 0) v.on.system.vmxElapsed(ran);
}

/** The guest has left the modes that the run is for: nothing more happens to it there. */
const hasLeft = ({ on, untilCr0 }: VmxVcpu): boolean => (on.cpu.i32[CPU.cr0 >> 2] & untilCr0) !== 0;

/** What is due in a guest at an instruction boundary, before anything is delivered to it. */
function boundary(v: VmxVcpu): RunStop | undefined {
  const { on } = v, { cpu, system } = on;
  if (hasLeft(v)) return "budget";
  v.resumeFlag = cpu.i32[CPU.rflags >> 2] & RFLAGS.RF;
  if (v.boundary) {
    report(v);
    if (system.vmxBoundary()) return "exit";
  }
  if (cpu.i32[CPU.pendingNmi >> 2] && system.nmiExit()) {
    cpu.i32[CPU.pendingNmi >> 2] -= 1;
    return "exit";
  }
  if (!cpu.interruptPending()) return undefined;
  const mode = system.interruptMode();
  if (mode === 0) return undefined;
  const vector = mode === 2 ? cpu.acknowledge() : -1;
  if (mode === 2 && vector < 0) return undefined;
  system.interruptExit(vector);
  return "exit";
}

/** Enters the guest of the current VMCS and runs it until it leaves. */
export function enterGuest(v: VmxVcpu, options: EnterOptions, budget: number): Outcome {
  const { on } = v, { cpu, system } = on, { i32 } = cpu;
  const launch = v.launchState[0] ? 0 : 1, end = cpu.count + budget;
  // What the entry injects is delivered before any boundary is looked at.
  if (v.shadowed) v.resumeFlag = on.read(F.guestRflags) & RFLAGS.RF;
  let stop: RunStop | undefined;
  if (!options.emulate && !v.boundary && budget > 0 && !v.taskTrap) {
    const outcome = cpu.runGuest(v.area, launch, budget);
    if (outcome === GUEST.left) return "exit";
    if (typeof outcome === "number") {
      if (outcome !== GUEST.entered) return outcome === LEFT_AT_ONCE ? "exit" : "refused";
    } else if (outcome !== "budget") stop = outcome;
  } else {
    i32[V.emulating >> 2] = options.emulate ? 1 : 0;
    const status = cpu.enterGuest(v.area, launch);
    if (status !== GUEST.entered) {
      i32[V.emulating >> 2] = 0;
      return status === LEFT_AT_ONCE ? "exit" : "refused";
    }
    i32[CPU.pendingDebug >> 2] |= v.taskTrap;
    if (options.emulate) cpu.beginEmulation();
  }
  v.reported = cpu.count;
  cpu.hooks.boundary = v.boundaryHook ??= () => boundary(v);
  stop ??= run(v, end);
  v.taskTrap = i32[CPU.pendingDebug >> 2] & TASK_TRAP;
  cpu.hooks.boundary = undefined;
  cpu.endEmulation();
  if (v.boundary) report(v);
  // Whatever else stopped it, the guest's state goes back to the VMCS, as by a host interrupt.
  if (stop !== "exit") {
    if (stop === "budget" && v.boundary && system.vmxBoundary()) {
      system.leaveGuest(v.area);
      return "exit";
    }
    system.interruptExit(-1);
  }
  system.leaveGuest(v.area);
  return stop;
}

/** Runs on until the processor's count is `end`. */
function run(v: VmxVcpu, end: number): RunStop {
  const { on } = v, { cpu, system } = on;
  for (;;) {
    const left = end - cpu.count;
    if (left <= 0) return "budget";
    const slice = Math.min(left, 0x7fff_ffff);
    const allowed = v.boundary ? system.vmxBudget(slice) : slice;
    const stop = cpu.run(allowed);
    if (stop !== "budget" || hasLeft(v)) return stop;
    if (!v.boundary) continue;
    report(v);
    if (system.vmxBoundary()) return "exit";
  }
}
