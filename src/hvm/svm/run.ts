/** Running a guest: VMRUN, the processor's run loop, and the way back. */
import { VIRTUAL_INTERRUPT } from "../../abi/x86/vmcb.ts";
import type { RunStop } from "../../machine/run.ts";
import { GUEST } from "../../machine/interpreter/guest.ts";
import { CPU, INTERRUPTIBILITY, SHADOW, V } from "../../machine/state.ts";
import { STATUS } from "../../machine/svm/entry.ts";
import { F, OWN, type SvmVcpu } from "./cpu.ts";
import { useGuestTables, useShadowTables } from "./shadow.ts";

/** What is due in a guest at an instruction boundary, before anything is delivered to it. */
function boundary(v: SvmVcpu): RunStop | undefined {
  const { cpu, system } = v.on, { i32 } = cpu;
  // In a single step a changed address means that an event was delivered.
  if (v.stepping && v.stepCount === cpu.count && cpu.u64[CPU.rip >> 3] !== v.stepFrom) {
    v.delivered = true;
    return "budget";
  }
  // The trap of the last instruction goes before interrupts.
  if (i32[CPU.pendingDebug >> 2] && !(i32[CPU.interruptibility >> 2] & INTERRUPTIBILITY.movSs)) {
    return undefined;
  }
  // 2: the guest has taken the virtual interrupt itself.
  if (v.words[F.virtualInterrupt >> 2] & VIRTUAL_INTERRUPT.irq && system.svmBoundary() === 1) {
    return "exit";
  }
  if (i32[CPU.pendingNmi >> 2] && system.nmiExit()) {
    i32[CPU.pendingNmi >> 2] -= 1;
    return "exit";
  }
  if (!cpu.interruptPending() || !system.interruptMode()) return undefined;
  system.interruptExit(-1);
  return "exit";
}

/** Runs the guest until it leaves, or for `budget` instructions. "exit": the VMCB says why. */
export function enterGuest(v: SvmVcpu, budget: number, emulate: boolean): RunStop {
  if (!emulate || !v.shadowed) return enterAsIs(v, budget, emulate);
  useGuestTables(v);
  const stop = enterAsIs(v, budget, emulate);
  useShadowTables(v);
  return stop;
}

function enterAsIs(v: SvmVcpu, budget: number, emulate: boolean): RunStop {
  const { cpu, system } = v.on, { i32 } = cpu, { own, words } = v;
  v.toProcessor();
  const end = cpu.count + budget;
  const watched = v.stepping || own[OWN.activity] !== 0 ||
    (words[F.virtualInterrupt >> 2] & VIRTUAL_INTERRUPT.irq) !== 0;
  let stop: RunStop | undefined;
  if (!emulate && !watched && budget > 0) {
    const outcome = cpu.runGuest(v.area, v.control, budget);
    if (outcome === GUEST.left) return left(v);
    if (typeof outcome === "number") {
      if (outcome !== GUEST.entered) return leftAtOnce(v, outcome);
    } else if (outcome !== "budget") stop = outcome;
  } else {
    i32[V.emulating >> 2] = emulate ? 1 : 0;
    const status = cpu.enterGuest(v.area, v.control);
    if (status !== GUEST.entered) return leftAtOnce(v, status);
    if (own[OWN.activity]) i32[CPU.activity >> 2] = own[OWN.activity];
    if (emulate) cpu.beginEmulation();
  }
  // The VMCB has one bit for both shadows; only MOV SS holds back debug traps.
  if (own[OWN.movSs] && i32[CPU.interruptibility >> 2] & INTERRUPTIBILITY.sti) {
    i32[CPU.interruptibility >> 2] ^= SHADOW;
  }
  stop ??= run(v, end);
  cpu.endEmulation();
  v.setOwn(OWN.activity, i32[CPU.activity >> 2]);
  v.setOwn(OWN.movSs, i32[CPU.interruptibility >> 2] & INTERRUPTIBILITY.movSs);
  i32[CPU.activity >> 2] = 0;
  // Whatever else stopped it, the guest's state goes back to the VMCB, as by a host interrupt.
  if (stop !== "exit") system.interruptExit(-1);
  system.leaveGuest(v.area);
  left(v);
  return stop;
}

/** Runs on until the processor's count is `end`. */
function run(v: SvmVcpu, end: number): RunStop {
  const { cpu } = v.on;
  v.delivered = false;
  v.stepCount = cpu.count;
  if (v.stepping) v.stepFrom = cpu.u64[CPU.rip >> 3];
  cpu.hooks.boundary = v.boundaryHook ??= () => boundary(v);
  let stop: RunStop = "budget";
  while (stop === "budget" && cpu.count < end && !v.delivered) {
    stop = cpu.run(Math.min(end - cpu.count, 0x7fff_ffff));
  }
  cpu.hooks.boundary = undefined;
  return stop;
}

/** The guest did not run: it left at once, or VMRUN is #GP, which would be our mistake. */
function leftAtOnce(v: SvmVcpu, status: number): "exit" {
  v.on.cpu.i32[V.emulating >> 2] = 0;
  if (status !== STATUS.left) throw new Error(`VMRUN: ${v.on.lastCheck().text}`);
  return left(v);
}

/** The guest has left: what asked for this one entry is over. */
function left(v: SvmVcpu): "exit" {
  v.words[F.tlbControl >> 2] = 0;
  v.setClean();
  return "exit";
}
