/**
 * What comes to a processor between instructions: traps, NMIs and interrupts at a boundary, and what
 * an instruction was given up for: faults and exits.
 */
import { EVENT_TYPE, VECTOR } from "../abi/x86/vectors.ts";
import { RFLAGS } from "../abi/x86/cr.ts";
import type { Cpu } from "./cpu.ts";
import type { RunStop } from "./run.ts";
import { ABORT, ACTIVITY, CPU, INTERRUPT, INTERRUPTIBILITY, SHADOW, V } from "./state.ts";
import { type HostedGuests, virtualization } from "./virtualization.ts";

/** An exception: its check and what that looked at, and where it was raised. */
export interface Fault {
  readonly vector: number;
  readonly errorCode?: number;
  readonly check: number;
  readonly a: bigint;
  readonly b: bigint;
  readonly rip: bigint;
  /** The processor's count of instructions. */
  readonly count: number;
}

/** STI holds an NMI back too, as it may (SDM 2B, STI): STI and HLT then wait for one together. */
const NMI_BLOCKED = SHADOW | INTERRUPTIBILITY.nmi;

export class Events {
  readonly #guests: HostedGuests | undefined;

  constructor(readonly cpu: Cpu) {
    this.#guests = virtualization[cpu.model].guests;
  }

  /** Delivers what is due at an instruction boundary. */
  boundary(): "delivered" | RunStop | undefined {
    const { cpu, cpu: { i32, observers, hooks } } = this;
    if (observers.length > 0 && observers.some((o) => o.isOver())) return "stopped";
    if (hooks.boundary) {
      const stop = hooks.boundary();
      if (stop) return stop;
    } else if (this.#ownGuest && this.#guests?.boundary(cpu)) return "delivered";
    if (this.initDue) {
      cpu.takeInit();
      return "delivered";
    }
    const activity = i32[CPU.activity >> 2];
    if (activity === ACTIVITY.shutdown) return "shutdown";
    // Nothing but a start-up IPI ends that.
    if (activity === ACTIVITY.waitForSipi) return "halt";
    const blocked = i32[CPU.interruptibility >> 2];
    if (i32[CPU.pendingDebug >> 2] && !(blocked & INTERRUPTIBILITY.movSs)) {
      this.deliver(VECTOR.DB, EVENT_TYPE.hardwareException);
      return "delivered";
    }
    if (this.#nmiDue) {
      i32[CPU.pendingNmi >> 2] -= 1;
      this.deliver(VECTOR.NMI, EVENT_TYPE.nmi);
      return "delivered";
    }
    if (this.#interruptsOpen && cpu.interruptPending() && this.#interruptWay === INTERRUPT.guests) {
      const vector = cpu.acknowledge();
      if (vector >= 0) {
        this.deliver(vector, EVENT_TYPE.externalInterrupt);
        return "delivered";
      }
    }
    return activity ? "halt" : undefined;
  }

  /** INIT was signalled, and nothing holds it back. */
  get initDue(): boolean {
    const { i32, model } = this.cpu;
    return i32[CPU.pendingInit >> 2] !== 0 && i32[CPU.gif >> 2] !== 0 &&
      !virtualization[model].holdsInit(i32);
  }
  /** No NMI is being handled, and nothing else holds them back for long. */
  get nmiOpen(): boolean {
    const { i32 } = this.cpu;
    return i32[CPU.gif >> 2] !== 0 && i32[CPU.activity >> 2] !== ACTIVITY.waitForSipi &&
      !(i32[CPU.interruptibility >> 2] & INTERRUPTIBILITY.nmi);
  }
  /** Without the global interrupt flag nothing from outside gets in. */
  get #nmiDue(): boolean {
    const { i32 } = this.cpu;
    return i32[CPU.pendingNmi >> 2] !== 0 && i32[CPU.gif >> 2] !== 0 &&
      !(i32[CPU.interruptibility >> 2] & NMI_BLOCKED);
  }
  get #interruptsOpen(): boolean {
    const { i32 } = this.cpu;
    return (i32[CPU.rflags >> 2] & RFLAGS.IF) !== 0 && i32[CPU.gif >> 2] !== 0 &&
      !(i32[CPU.interruptibility >> 2] & SHADOW);
  }
  /** What runs is the guest of a host that is code of this machine. */
  get #ownGuest(): boolean {
    const { i32 } = this.cpu;
    return i32[V.nonRoot >> 2] !== 0 && i32[V.hostedRoot >> 2] === 0;
  }
  /** What an interrupt of the controllers does there: INTERRUPT. */
  get #interruptWay(): number {
    return this.#ownGuest ? this.cpu.system.interruptMode() : INTERRUPT.guests;
  }

  /** An interrupt of its controllers would be taken, by delivery or by an exit: HLT ends with it. */
  get takesInterrupts(): boolean {
    const way = this.#interruptWay;
    if (this.cpu.i32[CPU.activity >> 2] === ACTIVITY.waitForSipi) return false;
    return way === INTERRUPT.leaves || (way === INTERRUPT.guests && this.#interruptsOpen);
  }
  /** What ends HLT is due. */
  get wakes(): boolean {
    if (this.initDue) return true;
    if (this.cpu.i32[CPU.activity >> 2] === ACTIVITY.waitForSipi) return false;
    return this.#nmiDue || (this.cpu.interruptPending() && this.takesInterrupts);
  }

  deliver(vector: number, type: number): void {
    const { i32 } = this.cpu;
    i32[CPU.activity >> 2] = ACTIVITY.active;
    i32[V.abort >> 2] = ABORT.none;
    i32[V.vector >> 2] = vector;
    i32[V.eventType >> 2] = type;
    i32[V.hasError >> 2] = 0;
    this.#deliverEvent();
  }

  /** Delivers the event in the cells. */
  #deliverEvent(): void {
    const { i32, i64, branches, system, counters, observation } = this.cpu;
    i64[V.passing >> 3] = -1n;
    if (branches.recorded) branches.recordDelivery();
    else system.deliver();
    if (i32[V.abort >> 2] === ABORT.none) {
      counters.delivered();
      observation.trap();
    } else observation.givenUp();
  }

  /** An event whose delivery made the guest leave goes with that exit, before anybody has a turn. */
  leftInDelivery(): RunStop | undefined {
    return this.cpu.i32[V.abort >> 2] === ABORT.exit ? this.aborted() : undefined;
  }

  /** What the instruction was given up for, or the event; undefined: run on. */
  aborted(): RunStop | undefined {
    const { cpu, cpu: { i32, hooks } } = this;
    const why = i32[V.abort >> 2];
    i32[V.abort >> 2] = ABORT.none;
    switch (why) {
      case ABORT.fault:
        return this.#fault();
      case ABORT.exit:
        // A host of machine code goes on behind its entry; others are told.
        if (i32[V.hostedRoot >> 2] || !this.#guests) return "exit";
        this.#guests.leave(cpu.system);
        return;
      case ABORT.delivered:
        cpu.observation.trap();
        return hooks.fault?.() ? "stopped" : undefined;
      case ABORT.unanswered:
        return "unanswered";
      case ABORT.due:
        return "stopped";
      case ABORT.frozen:
        // STI and MOV SS hold nothing back from a processor that waits.
        i32[CPU.interruptibility >> 2] &= ~SHADOW;
        i32[CPU.activity >> 2] = ACTIVITY.hlt;
        return;
      default:
        throw new Error(`the interpreter gave up without a reason (${why})`);
    }
  }

  /** The exception in the cells was raised. */
  #fault(): RunStop | undefined {
    const { cpu, cpu: { i32, u64 } } = this;
    cpu.raised = {
      vector: i32[V.vector >> 2],
      errorCode: i32[V.hasError >> 2] ? i32[V.errorCode >> 2] : undefined,
      check: i32[V.check >> 2],
      a: u64[V.checkA >> 3],
      b: u64[V.checkB >> 3],
      rip: u64[CPU.rip >> 3],
      count: cpu.count,
    };
    if (cpu.hooks.fault) {
      cpu.lastFault = cpu.raised;
      if (cpu.hooks.fault()) return "fault";
    }
    this.#deliverEvent();
    const left = i32[V.abort >> 2] === ABORT.exit;
    // Intercepted, it is a hypervisor's; interrupted in the course of its delivery it is not.
    if (!left || i32[V.vectoring >> 2]) {
      cpu.lastFault = cpu.raised;
      cpu.raised = undefined;
    }
    return left ? this.aborted() : undefined;
  }

  /** A hypervisor gives its guest an exception: the one that has just left, or another. */
  noteInjected(vector: number, errorCode: number | undefined, rip: bigint): void {
    const { cpu, cpu: { raised, count } } = this;
    cpu.raised = undefined;
    const known = raised?.vector === vector && raised.count === count ? raised : undefined;
    cpu.lastFault = { check: 0, a: 0n, b: 0n, rip, count, ...known, vector, errorCode };
  }
}
