/** The run loop of a processor: slices of the interpreter, and what is looked at between them. */
import { DR6, RFLAGS } from "../abi/x86/cr.ts";
import { EVENT_TYPE, VECTOR } from "../abi/x86/vectors.ts";
import type { Cpu } from "./cpu.ts";
import { GUEST } from "./interpreter/guest.ts";
import { STOPPED } from "./interpreter/hot.ts";
import type { Mode } from "./interpreter/predecode.ts";
import { ABORT, CODE_MODE, CPU, SHADOW, V } from "./state.ts";
import { virtualization } from "./virtualization.ts";

/** Why {@linkcode Cpu.run} returned. */
export type RunStop =
  /** The budget is used up. */
  | "budget"
  /** HLT with nothing to deliver. */
  | "halt"
  /** Shutdown after a triple fault. */
  | "shutdown"
  /** A VM exit: the control structure says the rest. */
  | "exit"
  | "breakpoint"
  /** Watched memory was accessed: by the instruction just executed, or by an event's delivery. */
  | "watch"
  /** The hypervisor's log has no answer yet. */
  | "unanswered"
  /** An exception that {@linkcode CpuHooks.fault} kept from being delivered. */
  | "fault"
  /** Somebody asked for it through {@linkcode Cpu.stop}. */
  | "stopped";

const { TF, RF } = RFLAGS;
/**
 * Most instructions in one call of the interpreter. What they cost at worst bounds how late the host
 * has its turn ({@linkcode Machine.due}); what is dearer than a walk of nested tables returns by itself.
 */
const CHUNK = 65_536;
/** Exceptions in a row with no instruction between them, after which time passes and `run` returns. */
const LIVELOCK = 1000;

export class RunLoop {
  #stop = false;
  /** With TF only branches trap. */
  #toBranch = false;
  /** RF, if that was set for what is under way after the run began. */
  #resumes = 0;

  constructor(readonly cpu: Cpu) {}

  /** Makes {@linkcode run} return "stopped" at the next slice boundary. */
  stop(): void {
    this.#stop = true;
  }
  reset(): void {
    this.#stop = false;
  }

  /** The host wants its thread; an instruction that is being emulated is completed first. */
  get hostDue(): boolean {
    const { i32, machine } = this.cpu;
    return i32[V.emulating >> 2] === 0 && machine.due();
  }

  /**
   * Runs at most `budget` instructions, and begins none at machine time `until` or later; says why it
   * stopped. `count` grows by exactly the number retired.
   */
  run(budget: number, until: number): RunStop {
    const { cpu } = this, { bus, i32, counters, branches, observation, events } = cpu;
    let left = budget;
    this.#stop = false;
    if (!i32[V.emulating >> 2]) cpu.i64[V.passing >> 3] = -1n;
    while (left > 0 && cpu.count + cpu.idle < until) {
      if (this.#stop || this.hostDue) return "stopped";
      const time = cpu.count + cpu.idle;
      let due = bus.deadline() - time;
      if (due <= 0) {
        due = cpu.runDevices(time);
        // What a device has done may be another processor's to see before this one goes on.
        if (this.#stop) return "stopped";
      }
      observation.arm();
      cpu.system.refresh();
      const counting = counters.enabled;
      if (counting) counters.begin();
      const event = observation.watched ? "delivered" : events.boundary();
      if (event === "delivered") {
        // An event that is injected was delivered before.
        const stop = observation.watchedDone() ?? events.leftInDelivery() ??
          (this.#livelocked() ? "stopped" : undefined);
        if (counting) counters.settle();
        if (stop) return stop;
        continue;
      }
      if (event) return event;
      const flags = i32[CPU.rflags >> 2];
      const shadow = i32[CPU.interruptibility >> 2] & SHADOW;
      const recording = branches.recorded;
      this.#toBranch = (flags & TF) !== 0 && branches.trap;
      const single = shadow !== 0 || (flags & TF) !== 0 || recording;
      const most = counting ? counters.most(CHUNK) : CHUNK;
      const slice = single ? 1 : Math.min(left, most, due, until - time);
      if (!cpu.hot) this.#generalize();
      const mode = cpu.predecoder.mode = i32[V.codeMode >> 2] as Mode;
      if (recording || this.#toBranch) branches.begin();
      if (flags & RF) this.#resume();
      cpu.beginSlice(slice, cpu.interruptPending());
      i32[V.stepping >> 2] = flags & TF;
      const code = cpu.instances.interpreter(mode).run(slice);
      const before = cpu.count;
      const stop = this.#ran(code, shadow, flags);
      if (recording && cpu.count > before && branches.taken) branches.record();
      if (counting) counters.settle();
      left -= cpu.count - before;
      if (stop) return stop;
    }
    return "budget";
  }

  /** Flat code runs as all other does. */
  #generalize(): void {
    const { i32 } = this.cpu;
    if (i32[V.codeMode >> 2] === CODE_MODE.flat32) i32[V.codeMode >> 2] = CODE_MODE.code32;
    if (i32[V.codeMode >> 2] === CODE_MODE.flat64) i32[V.codeMode >> 2] = CODE_MODE.code64;
  }

  /** The interpreter came back: counts, and what it stopped for. Undefined: run on. */
  #ran(code: number, shadow: number, flags: number): RunStop | undefined {
    const { cpu } = this, { i32, observation, events } = cpu;
    const rest = i32[V.left >> 2];
    const delivered = i32[V.abort >> 2] === ABORT.delivered;
    const done = cpu.settleSlice(code === STOPPED.abort || delivered ? rest + 1 : rest);
    const before = code === STOPPED.abort && observation.beforeFetch();
    if (flags & RF) cpu.i64[V.passing >> 3] = -1n;
    if (done > 0) this.#afterInstructions(shadow);
    // The instruction that it was set for is still to come.
    else if ((flags | this.#resumes) & RF && !delivered) i32[CPU.rflags >> 2] |= RF;
    this.#resumes = 0;
    if (code === STOPPED.breakpoint || before) return this.#atBreakpoint();
    if (done > 0) cpu.fruitless = 0;
    if (code !== STOPPED.abort && !delivered) return observation.watchedDone();
    if (!delivered) observation.givenUp();
    const stop = events.aborted() ?? observation.watchedDone();
    if (stop) return stop;
    // The handler's instructions are not the one that was to be emulated.
    if (this.#livelocked() || i32[V.emulating >> 2]) return "stopped";
  }

  #atBreakpoint(): RunStop | undefined {
    const { observation, events } = this.cpu;
    const reached = observation.reached();
    if (reached !== "debug") return reached;
    events.deliver(VECTOR.DB, EVENT_TYPE.hardwareException);
    return events.leftInDelivery();
  }

  /**
   * Enters the guest that `enterGuest(area, launch)` enters and, if nothing is due first, runs at most
   * `budget` instructions of it.
   *
   * @returns a number of GUEST: what `enterGuest` gives, or `left` when the guest ran and left again;
   *   else why it stopped while it still is in the processor: "budget" if it may run on.
   */
  runGuest(area: number, launch: number, budget: number): number | RunStop {
    const { cpu } = this, { i32, machine } = cpu;
    const slice = Math.min(budget, CHUNK, cpu.bus.deadline() - cpu.count - cpu.idle);
    const quick = slice > 0 && cpu.hot && !machine.due() && !cpu.hooks.fault &&
      cpu.observation.none && !cpu.interruptPending();
    if (!quick) return this.enterGuest(area, launch);
    this.#stop = false;
    const { mode } = cpu.predecoder;
    cpu.beginSlice(slice, false);
    i32[V.stepping >> 2] = i32[V.injected >> 2] = 0;
    const { index } = cpu.instances.interpreter(mode);
    const end = cpu.system.runGuest(area, launch, slice, mode, index);
    if (end === GUEST.left) {
      if (cpu.settleSlice(i32[V.left >> 2] + 1) > 0) cpu.fruitless = 0;
      return end;
    }
    if (end >= GUEST.ran) {
      return this.#ran(end - GUEST.ran, 0, 0) ?? (this.#stop ? "stopped" : "budget");
    }
    cpu.settleSlice(i32[V.left >> 2]);
    cpu.count += i32[V.injected >> 2];
    return end;
  }

  /** Enters a guest as `enterGuest(area, launch)` does; what it injects may complete an instruction. */
  enterGuest(area: number, launch: number): number {
    const { cpu } = this, { i32 } = cpu;
    i32[V.injected >> 2] = 0;
    const status = cpu.system.enterGuest(area, launch);
    cpu.count += i32[V.injected >> 2];
    return status;
  }

  /**
   * An emulated INS or OUTS has done an iteration: that is retired here, and the next one follows at
   * once, unless there is a trap in between, or something counts.
   */
  repeats(): boolean {
    const { cpu } = this, { i32 } = cpu;
    const trap = i32[V.stepping >> 2] | i32[CPU.pendingDebug >> 2];
    if (trap || cpu.observation.met || cpu.counters.enabled) return false;
    if (!cpu.hooks.emulatedIoRepeats?.()) return false;
    cpu.count++;
    cpu.fruitless = 0;
    // Set between iterations; and kept by the exit that is left out, or not (SDM 3 28.3.3).
    if (virtualization[cpu.model].keepsResumeFlag) this.#resumes = RF;
    return true;
  }

  /**
   * A handler whose first instruction faults into itself goes round for ever and retires nothing. An
   * exception takes 1 ns there, so that timers still ring, and the caller gets its turn.
   */
  #livelocked(): boolean {
    const { cpu } = this;
    if (++cpu.fruitless < LIVELOCK) return false;
    cpu.fruitless = 0;
    cpu.idle += LIVELOCK;
    return true;
  }

  /** RF is for the next instruction only (SDM 3 17.3.1.1): its breakpoints are behind it. */
  #resume(): void {
    const { i32, u64 } = this.cpu;
    i32[CPU.rflags >> 2] &= ~RF;
    u64[V.passing >> 3] = u64[CPU.rip >> 3];
  }

  /** What holds for one instruction only ends with it; a traced one leaves its trap. */
  #afterInstructions(shadow: number): void {
    const { i32, branches, observation } = this.cpu;
    if (shadow && (i32[CPU.interruptibility >> 2] & SHADOW) === shadow) {
      i32[CPU.interruptibility >> 2] &= ~SHADOW;
    }
    if (i32[V.stepping >> 2] && (!this.#toBranch || branches.taken)) {
      i32[CPU.pendingDebug >> 2] |= DR6.BS;
    }
    observation.trap();
    // Whatever comes between the iterations of a repeated instruction finds RF set (SDM 3 17.3.1.1).
    if (i32[V.repeating >> 2]) i32[CPU.rflags >> 2] |= RF;
    i32[V.repeating >> 2] = 0;
  }
}
