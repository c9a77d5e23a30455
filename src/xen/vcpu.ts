/** A virtual processor: what executes it, where it is scheduled, and what it is doing. */
import { amount, flag, record, type Shape, table, word } from "../machine/shape.ts";
import type { StateRegistry } from "../machine/state_block.ts";
import type { Cpu } from "../machine/cpu.ts";
import type { Domain } from "./domain.ts";
import type { Engine } from "./engine.ts";
import type { InterruptPort } from "./platform.ts";
import type { Processor } from "./processor.ts";
import type { XenVcpu } from "./xen_vcpu.ts";
import { type Share, SHARE_SHAPE } from "./scheduler.ts";

/** RUNSTATE_running, RUNSTATE_runnable, RUNSTATE_blocked, RUNSTATE_offline. */
export const RUNSTATES: readonly ["running", "runnable", "blocked", "offline"] = [
  "running",
  "runnable",
  "blocked",
  "offline",
];
/** What a vCPU does: RUNSTATE_* of Xen's public header vcpu.h, in lower case. */
export type RunstateName = "running" | "runnable" | "blocked" | "offline";

/** vcpu_runstate_info of Xen's public header vcpu.h, in machine time (ns). */
export interface Runstate {
  readonly state: RunstateName;
  /** When that began. */
  readonly since: number;
  /** How long it was in each. */
  readonly time: Readonly<Record<RunstateName, number>>;
}

export interface SavedVcpu {
  /** Instructions retired. */
  readonly count: number;
  readonly halted: boolean;
  readonly exits: Readonly<Record<string, number>>;
  readonly share: Share;
  readonly runstate: Runstate;
}
const SAVED: Shape = record({
  count: amount,
  halted: flag,
  exits: table(amount),
  share: SHARE_SHAPE,
  runstate: record({
    state: word(...RUNSTATES),
    since: amount,
    time: record(Object.fromEntries(RUNSTATES.map((name) => [name, amount]))),
  }),
});

export class Vcpu {
  /** What executes it. */
  engine!: Engine;
  /** Its share of the processor. */
  readonly share: Share;
  /** Exits by kind. */
  readonly exits: Record<string, number> = {};
  #count = 0;
  #halted = false;
  /** What it does while its domain is not paused. */
  #state: RunstateName;
  #since: number;
  /** Machine time since which its domain is paused, if it is. */
  #stands: number | undefined;
  readonly #time = { running: 0, runnable: 0, blocked: 0, offline: 0 };
  /** Machine time up to which `#time` has it all. */
  #accounted: number;

  constructor(
    readonly domain: Domain,
    /** Number within its domain, from 0. */
    readonly id: number,
    /** Where it runs. */
    readonly processor: Processor,
  ) {
    this.share = domain.host.scheduler.join();
    // Others than the first begin when they are started up.
    this.#state = id === 0 ? "runnable" : "offline";
    this.#since = this.#accounted = this.#stands = this.cpu.now;
  }

  /** Instructions it has retired; exact inside a device access too. */
  get count(): number {
    return this.#count + (this.running ? this.processor.ranSoFar : 0);
  }
  retire(instructions: number): void {
    this.#count += instructions;
  }
  /** The processor it runs on. */
  get cpu(): Cpu {
    return this.processor.cpu;
  }
  /** What of the motherboard is its own: local APIC, NMI, INIT and start-up. */
  get port(): InterruptPort | undefined {
    return this.domain.platform?.ports[this.id];
  }
  /** What Xen's interface has for it alone. */
  get upcall(): XenVcpu | undefined {
    return this.domain.xen?.vcpus[this.id];
  }
  /** Its registers are the processor's. */
  get loaded(): boolean {
    return this.processor.current === this;
  }
  /** It runs just now. */
  get running(): boolean {
    return this.processor.running === this;
  }

  // --- what it is doing ---

  /** What it does, or would, were its domain not paused. */
  get state(): RunstateName {
    return this.#state;
  }
  /** Its domain runs, and no other vCPU of it alone. */
  get goes(): boolean {
    const { runs, only } = this.domain;
    return runs && (only === undefined || only === this);
  }
  get online(): boolean {
    return this.#state !== "offline";
  }
  /** It could have its turn, were its domain not paused. */
  get ready(): boolean {
    return this.#state === "running" || this.#state === "runnable";
  }
  /** It waits for an interrupt, or for a device outside; in a paused domain, when that goes on. */
  get blocked(): boolean {
    return this.#state === "blocked";
  }
  /** It is behind a HLT: paused there, it waits when it goes on. */
  get halted(): boolean {
    return this.#halted;
  }
  /** It has nothing to do until an interrupt, or until a device has answered. */
  block(): void {
    this.#halted = !this.engine.waiting;
    this.#enter("blocked");
  }
  /** It has nothing to do until it is started up. */
  goOffline(): void {
    this.#halted = false;
    this.#enter("offline");
  }
  /** What it waited for is there. */
  wake(): void {
    this.#halted = false;
    this.#enter("runnable");
  }
  /** Its turn begins. */
  begin(): void {
    this.#enter("running");
  }
  /** It gives the rest of its turn to others that can run. */
  yield(): void {
    this.processor.turn = null;
    this.domain.host.scheduler.yield(this);
  }
  /** Another's turn does. */
  preempt(): void {
    if (this.#state === "running") this.#enter("runnable");
  }
  /** Its domain is paused, or is no more, or lets another run alone. */
  stand(): void {
    if (this.#stands !== undefined) return;
    this.#account();
    this.#stands = this.#accounted;
    this.upcall?.runstate.stand();
  }
  /** Its domain is on another clock. */
  clockChanged(): void {
    this.upcall?.runstate.enter(this.#state);
  }
  /** Its domain goes on. */
  goOn(): void {
    if (this.#stands === undefined) return;
    this.#account();
    if (this.#stood) this.#since = this.#accounted;
    this.#stands = undefined;
    this.upcall?.runstate.goOn();
  }

  #enter(state: RunstateName): void {
    if (this.#state === state) return;
    this.#account();
    this.#state = state;
    this.#since = this.#accounted;
    this.upcall?.runstate.enter(state);
  }
  #account(): void {
    const { now } = this.cpu;
    this.#time[this.#shown] += now - this.#accounted;
    this.#accounted = now;
  }
  /** One that waits goes on doing so in a pause: blocked dominates offline, as vcpu.h says. */
  get #shown(): RunstateName {
    return this.#stands === undefined || this.blocked ? this.#state : "offline";
  }
  /** It stood still while time passed: a pause in which none passes is none. */
  get #stood(): boolean {
    return this.#stands !== undefined && this.#accounted > this.#stands && !this.blocked;
  }
  /** What it does, since when, and how long it did what. */
  get runstate(): Runstate {
    this.#account();
    const state = this.#shown, offline = state === "offline";
    const since = offline ? this.#stands ?? this.#since : this.#since;
    return { state, since, time: { ...this.#time } };
  }

  /** Registers its state, and its engine's. */
  register(blocks: StateRegistry, part: string): void {
    const own = blocks.part(part);
    own.register<SavedVcpu>({
      name: "",
      version: 1,
      shape: SAVED,
      save: () => ({
        count: this.count,
        halted: this.#halted,
        exits: { ...this.exits },
        share: { ...this.share },
        runstate: this.#saved(),
      }),
      load: ({ count, halted, exits, share, runstate }) => {
        this.#count = count;
        this.#halted = halted;
        for (const kind of Object.keys(this.exits)) delete this.exits[kind];
        Object.assign(this.exits, exits);
        Object.assign(this.share, share);
        this.#state = runstate.state;
        this.#since = runstate.since;
        Object.assign(this.#time, runstate.time);
        this.#accounted = this.cpu.now;
        if (this.#stands !== undefined) this.#stands = this.#accounted;
      },
    });
    this.engine.register(own);
  }
  /** What it does beneath a pause: whether it is paused is its domain's to say. */
  #saved(): Runstate {
    this.#account();
    const since = this.#stood ? this.#accounted : this.#since;
    return { state: this.#state, since, time: { ...this.#time } };
  }
}
