/**
 * The monitor: who wants to see what a domain does stands here, between the scheduler and the
 * domain's engine. It stands before the engine while anything is armed, and goes away after; so
 * nothing is paid when nobody looks. It observes only: instruction counts, time and state are the
 * same with it and without.
 *
 * What is seen:
 * - execution of a linear address: the predecoded record of the instruction has a breakpoint before
 *   it (`cpu.hooks.hasBreakpointAt`); guest memory is not touched;
 * - accesses to watched memory: watched pages stay out of the TLBs, `cpu.hooks.watch` notes them, and
 *   the run ends behind the instruction that makes them, whoever executes it;
 * - the end of a number of instructions (single-step);
 * - exits of a hardware virtual machine: its engine shows each before it handles it.
 */
import type { Exit, GuestEvent } from "../hvm/exit.ts";
import type { Intercepts, RegisterName } from "../hvm/ops.ts";
import type { Cpu } from "../machine/cpu.ts";
import { ACCESS, CPU, FRAME, FRAME_FLAG, V } from "../machine/state.ts";
import { BareEngine } from "./bare.ts";
import type { Domain, Engine, SliceEnd } from "./domain.ts";
import { HvmEngine, type Observed } from "./hvm.ts";
import { type Part, type Watch, Watches } from "./watches.ts";

/** An access that a watch saw. */
export interface WatchHit {
  readonly watch: Watch;
  readonly linear: bigint;
  /** Where it lies: in two pages perhaps. */
  readonly parts: readonly Part[];
  readonly bytes: number;
  readonly write: boolean;
  /** The processor's own: delivery of an event, not an instruction. */
  readonly delivery: boolean;
  /** Value before. */
  readonly old: bigint;
  /** Value after; the same for reads. */
  readonly value: bigint;
}

/** What the monitor tells its observer. */
export type MonitorEvent =
  /** The instruction at a linear address is next. */
  | { readonly kind: "execute"; readonly address: bigint }
  /** An instruction was executed that touched watched memory. */
  | { readonly kind: "watch"; readonly hits: readonly WatchHit[] }
  /** The instructions asked for are over, or an event was delivered. */
  | { readonly kind: "step" };

/** What becomes of an exit that was shown. */
export type Verdict =
  /** Handled as if nobody had looked. */
  | { readonly kind: "continue" }
  /** The domain stops; the exit waits, and is handled when the domain goes on. */
  | { readonly kind: "stop"; readonly stop: unknown }
  /** The instruction is passed over without effect; its length where the exit does not tell. */
  | { readonly kind: "skip"; readonly length?: number }
  /** The event is injected in its place. */
  | { readonly kind: "inject"; readonly event: GuestEvent }
  /** Registers get these values, and the instruction is passed over. */
  | { readonly kind: "reply"; readonly registers: Readonly<Record<string, bigint>> };

/** Who is asked. */
export interface Observer {
  /** The vCPU's instruction pointer, and the same as a linear address. */
  ip(): bigint;
  linearIp(): bigint;
  /** What to stop the domain with; undefined to go on. */
  event(event: MonitorEvent): unknown;
  exit(exit: Exit): Verdict | undefined;
}

/** So many exits at least are kept. */
const RECENT = 64;

/** Stands for "a breakpoint or watch was reached" on its way through an engine. */
const REACHED = { breakpoint: { reached: "breakpoint" }, watch: { reached: "watch" } } as const;

const isReached = (stop: unknown): stop is { reached: "breakpoint" | "watch" } =>
  stop === REACHED.breakpoint || stop === REACHED.watch;

/** Observation of one domain. */
export class Monitor {
  readonly engine: BareEngine | HvmEngine;
  readonly #cpu: Cpu;
  readonly #addresses = new Set<bigint>();
  /** How many of them have an offset in their page: records do not know where that is mapped. */
  readonly #offsets = new Map<number, number>();
  /** Offsets whose code is to be predecoded again before the domain runs. */
  readonly #stale = new Set<number>();
  readonly #watches = new Watches();
  /** Instructions left of a step. */
  #left = Infinity;
  /** A step of one instruction was asked for: what is left of a longer one is none. */
  #one = false;
  /** Asked after each instruction while set: true ends the step. */
  #stepEnds: (() => boolean) | undefined;
  #wantsExits = false;
  /** Gives the exits that are wanted; undefined while the hardware has been told. */
  #newExits: (() => Intercepts | undefined) | undefined;
  /** The instruction whose breakpoint was reported last. */
  #passed = { rip: -1n, count: -1 };
  #hits: WatchHit[] = [];
  /** Where the one instruction began that is being run by itself. */
  #single: { readonly rip: bigint; readonly count: number } | undefined;
  /** The exit the domain stands at. */
  #stoppedAt: Exit | undefined;
  /** Exits since something was armed, the newest last; the oldest are dropped. */
  readonly recent: { readonly exit: Exit; readonly count: number }[] = [];
  /** Puts the processor's hooks back, while this domain is on it. */
  #leave: (() => void) | undefined;
  /** Puts the engine back, while anything is armed. */
  #disarm: (() => void) | undefined;

  constructor(readonly domain: Domain, readonly observer: Observer) {
    const { engine } = domain;
    if (!(engine instanceof BareEngine || engine instanceof HvmEngine)) {
      throw new Error(`domain ${domain.name} is observed already`);
    }
    this.engine = engine;
    this.#cpu = domain.cpu;
  }

  /** Whether the observer is asked before the instruction at a linear address. */
  setAddress(address: bigint, on: boolean): void {
    if (this.#addresses.has(address) === on) return;
    const offset = Number(address & 0xfffn);
    const count = (this.#offsets.get(offset) ?? 0) + (on ? 1 : -1);
    if (on) this.#addresses.add(address);
    else this.#addresses.delete(address);
    if (count > 0) this.#offsets.set(offset, count);
    else this.#offsets.delete(offset);
    // Where the offset was one before, the records have their breakpoint.
    if (count === +on) this.#stale.add(offset);
    this.#arm();
    // Armed in the course of a run, or with nobody left who would do it later.
    if (this.#current && (this.#running || !this.#armed)) this.#refreshCode();
  }

  #refreshCode(): void {
    if (this.#stale.size > 0) this.#invalidate(this.#stale);
    this.#stale.clear();
  }

  /** Code at these offsets of any frame is predecoded again. */
  #invalidate(offsets: Iterable<number>): void {
    const { frameTable } = this.#cpu.machine;
    const masks = [0, 0];
    for (const offset of offsets) masks[offset >> 11 & 1] |= 1 << (offset >> 6 & 31);
    for (let at = 0; at < frameTable.length; at += FRAME.size / 4) {
      if (!(frameTable[at] & FRAME_FLAG.code)) continue;
      const code = at + FRAME.code / 4;
      if (frameTable[code] & masks[0] || frameTable[code + 1] & masks[1]) {
        this.#cpu.predecoder.invalidate(at / (FRAME.size / 4));
      }
    }
  }

  setWatch(watch: Watch, on: boolean): void {
    this.#watches.set(watch, on);
    this.#arm();
    if (this.#current) this.#armWatches(this.#watches.size > 0);
  }
  #armWatches(on: boolean): void {
    const others = this.#cpu.i32[V.watching >> 2] & ~1;
    this.#cpu.i32[V.watching >> 2] = on ? others | 1 : others;
    this.#cpu.flushTlb();
  }

  /** Exits that the observer wants to see, asked for before the domain runs; undefined: none. */
  setExits(wanted: (() => Intercepts) | undefined): void {
    const { engine } = this;
    if (!(engine instanceof HvmEngine)) {
      if (wanted === undefined) return;
      throw new Error("this domain runs on the bare processor: there are no exits to observe");
    }
    if (wanted === undefined && !this.#wantsExits) return;
    this.#wantsExits = wanted !== undefined;
    this.#newExits = wanted ?? (() => undefined);
    this.#arm();
    if (this.#running || !this.#armed) this.#applyExits();
  }
  #applyExits(): void {
    const wanted = this.#newExits, { engine, domain } = this;
    this.#newExits = undefined;
    if (!wanted || !(engine instanceof HvmEngine) || domain.state.kind === "destroyed") return;
    engine.observe(wanted());
  }

  /**
   * The next run ends after `instructions`; with `ends` it goes one instruction at a time, and is
   * over when that says so. A step of one instruction is over, too, when an event was delivered.
   */
  setStep(instructions: number, ends?: () => boolean): void {
    this.#left = instructions;
    this.#one = instructions === 1;
    this.#stepEnds = ends;
    this.#arm();
  }
  clearStep(): void {
    this.#left = Infinity;
    this.#one = false;
    this.#stepEnds = undefined;
    this.#arm();
  }

  /** The instruction at the present address was seen: going on does not report it again. */
  pass(): void {
    const rip = this.observer.ip();
    this.#cpu.passBreakpoint(rip);
    this.#passed = { rip, count: this.domain.count };
  }

  /** Going on from where the domain stands does not report the breakpoint there. */
  get passing(): boolean {
    return this.#passed.count === this.domain.count && this.#passed.rip === this.observer.ip();
  }
  /** The exit the domain stands at, and that can be answered. */
  get stoppedAt(): Exit | undefined {
    const { engine } = this;
    return engine instanceof HvmEngine && engine.pending === this.#stoppedAt
      ? engine.pending
      : undefined;
  }
  /** The host was put into a saved state; the exit at which the domain stands in it, if it does. */
  loaded(passing: boolean, atExit: boolean): Exit | undefined {
    const { engine } = this;
    this.#hits = [];
    this.#single = undefined;
    this.recent.length = 0;
    this.#stoppedAt = atExit && engine instanceof HvmEngine ? engine.pending : undefined;
    if (passing) this.pass();
    else this.#passed = { rip: -1n, count: -1 };
    return this.#stoppedAt;
  }

  get #armed(): boolean {
    return this.#addresses.size > 0 || this.#watches.size > 0 || this.#left !== Infinity ||
      this.#stepEnds !== undefined || this.#wantsExits;
  }
  get #current(): boolean {
    return this.domain.host.current === this.domain;
  }
  get #running(): boolean {
    return this.domain.state.kind === "running";
  }

  #arm(): void {
    if (this.#armed) {
      this.#disarm ??= this.#engage();
      if (this.#current) this.#leave ??= this.#enter();
    } else {
      this.#leave?.();
      this.#leave = undefined;
      this.#disarm?.();
      this.#disarm = undefined;
    }
  }

  /** Takes the place of what the scheduler calls of the engine. */
  #engage(): () => void {
    const { engine } = this;
    if (engine instanceof HvmEngine) {
      engine.observer = { exit: (exit) => this.#exit(exit), reached: (kind) => REACHED[kind] };
    } else engine.hooks.reached = (kind) => REACHED[kind];
    const own: Pick<Engine, "run" | "load" | "unload"> = {
      run: (budget) => this.#run(budget),
      load: () => this.#load(),
      unload: () => this.#unload(),
    };
    Object.assign(engine, own);
    return () => {
      if (engine instanceof HvmEngine) engine.observer = undefined;
      else delete engine.hooks.reached;
      // What the engine's class has shows again.
      for (const name of Object.keys(own)) delete (engine as Partial<Engine>)[name as keyof Engine];
    };
  }

  /** The engine's own methods, whatever stands before them. */
  get #own(): Engine {
    return Object.getPrototypeOf(this.engine);
  }

  #exit(exit: Exit): Observed {
    this.recent.push({ exit, count: this.#cpu.count });
    if (this.recent.length > 2 * RECENT) this.recent.splice(0, RECENT);
    if (!this.#wantsExits) return undefined;
    const verdict = this.observer.exit(exit);
    if (verdict?.kind === "stop") {
      this.#stoppedAt = exit;
      return { stop: verdict.stop };
    }
    return verdict && this.#carryOut(exit, verdict) ? "answered" : undefined;
  }

  /** True if the exit is dealt with; false if the hypervisor is to handle it as always. */
  #carryOut(exit: Exit, verdict: Verdict): boolean {
    const { ops, vcpu } = this.engine as HvmEngine;
    switch (verdict.kind) {
      case "skip":
        ops.advance(vcpu, verdict.length ?? exit.length);
        return true;
      case "inject":
        ops.inject(vcpu, verdict.event);
        return true;
      case "reply":
        for (const [name, value] of Object.entries(verdict.registers)) {
          ops.setRegister(vcpu, name as RegisterName, value);
        }
        ops.advance(vcpu, exit.length);
        return true;
      default:
        return false;
    }
  }

  /** The domain stands at an exit: that is dealt with so, and not handled when it goes on. */
  answer(verdict: Verdict): void {
    const { engine } = this;
    if (!(engine instanceof HvmEngine) || !engine.pending || engine.pending !== this.#stoppedAt) {
      throw new Error("the domain stands at no exit that could be answered");
    }
    if (!this.#carryOut(engine.pending, verdict)) return;
    engine.pending = this.#stoppedAt = undefined;
  }

  /** Sets the processor's hooks. */
  #enter(): () => void {
    const { hooks } = this.#cpu;
    const before = { ...hooks };
    hooks.hasBreakpoint = (low, high) =>
      this.#addresses.has(BigInt(high >>> 0) << 32n | BigInt(low >>> 0));
    hooks.hasBreakpointAt = (offset) => this.#offsets.has(offset);
    hooks.watchesPage = (low, high, frame) => this.#watches.inPage(low, high, frame);
    hooks.watch = (low, high, physical, bytes, access, delivery, next) =>
      this.#watch(low, high, partsOf(low, physical, bytes, next), access, delivery);
    hooks.givenUp = () => this.#hits = [];
    // An engine sets this one anew at each entry of its guest.
    let next = before.boundary;
    const boundary = () => this.#boundary(next);
    Object.defineProperty(hooks, "boundary", {
      configurable: true,
      enumerable: true,
      get: () => boundary,
      set: (hook) => next = hook,
    });
    return () => {
      delete hooks.boundary;
      hooks.boundary = next;
      for (
        const name of [
          "hasBreakpoint",
          "hasBreakpointAt",
          "watchesPage",
          "watch",
          "givenUp",
        ] as const
      ) {
        put(hooks, name, before[name]);
      }
      this.#cpu.passNone();
    };
  }

  #load(): void {
    this.#own.load.call(this.engine);
    this.#leave ??= this.#enter();
    // Another domain had the processor since the breakpoint was passed.
    if (this.#passed.count === this.domain.count) this.#cpu.passBreakpoint(this.#passed.rip);
    if (this.#watches.size) this.#armWatches(true);
    this.#invalidate(this.#offsets.keys());
  }
  #unload(): void {
    if (this.#watches.size) this.#armWatches(false);
    this.#leave?.();
    this.#leave = undefined;
    this.#invalidate(this.#offsets.keys());
    this.#own.unload.call(this.engine);
  }

  #run(budget: number): SliceEnd {
    const cpu = this.#cpu, { domain } = this;
    const until = cpu.now + budget;
    this.#refreshCode();
    this.#applyExits();
    while (cpu.now < until) {
      const single = this.#one || this.#stepEnds !== undefined;
      const before = cpu.count;
      const from = this.observer.ip();
      this.#single = single ? { rip: from, count: before } : undefined;
      const result = this.#own.run.call(
        this.engine,
        single ? 1 : Math.min(until - cpu.now, this.#left),
      );
      this.#single = undefined;
      const done = cpu.count - before;
      this.#left -= done;
      // A step in which nothing was executed, and the address has changed all the same.
      const delivered = single && done === 0 && this.observer.ip() !== from;
      const stop = this.#after(result, done, delivered);
      if (stop) return stop;
      // A device ended the domain, or somebody paused it from within.
      if (domain.ending || domain.state.kind !== "running") return result;
      if (cpu.machine.due()) break;
    }
    return { kind: "budget" };
  }

  /** What a part of a run led to: the end of the slice, or undefined to go on. */
  #after(result: SliceEnd, done: number, delivered: boolean): SliceEnd | undefined {
    const reached = result.kind === "stop" && isReached(result.stop) && result.stop.reached;
    if (reached === "breakpoint") {
      const stop = this.#breakpoint();
      return stop === undefined ? undefined : { kind: "stop", stop };
    }
    if (result.kind === "end" || (result.kind === "stop" && !reached)) return result;
    let stop = this.#reportHits();
    const stepped = done > 0 || delivered;
    const over = this.#left <= 0 || (this.#one && delivered) ||
      (stepped && this.#stepEnds?.());
    if (over) {
      this.clearStep();
      stop ??= this.observer.event({ kind: "step" });
      this.#atStep();
    }
    const blocked = result.kind === "blocked";
    if (stop !== undefined) return { kind: "stop", stop, blocked };
    return blocked ? result : undefined;
  }

  #reportHits(): unknown {
    if (this.#hits.length === 0) return undefined;
    const hits = this.#hits.map((h) => ({ ...h, value: this.#valueAt(h.parts) }));
    this.#hits = [];
    return this.observer.event({ kind: "watch", hits });
  }

  /** A step that ends at a breakpoint has reached it: going on passes it. */
  #atStep(): void {
    const address = this.observer.linearIp();
    if (!this.#addresses.has(address)) return;
    this.observer.event({ kind: "execute", address });
    this.pass();
  }

  #breakpoint(): unknown {
    const address = this.observer.linearIp();
    const stop = this.#addresses.has(address)
      ? this.observer.event({ kind: "execute", address })
      : undefined;
    this.pass();
    return stop;
  }

  /** Before events are delivered. In a single step, a changed address now means that one was. */
  #boundary(next: Cpu["hooks"]["boundary"]): ReturnType<NonNullable<Cpu["hooks"]["boundary"]>> {
    const cpu = this.#cpu, single = this.#single;
    const delivered = single?.count === cpu.count && cpu.u64[CPU.rip >> 3] !== single.rip;
    return delivered ? "stopped" : next?.();
  }

  #watch(
    low: number,
    high: number,
    parts: readonly Part[],
    access: number,
    delivery: boolean,
  ): boolean {
    const write = (access & ACCESS.write) !== 0;
    const hit = this.#watches.hit(low, high, parts, write);
    if (hit.length === 0) return false;
    const linear = BigInt(high >>> 0) << 32n | BigInt(low >>> 0);
    const old = this.#valueAt(parts), bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
    const before = this.#hits.filter((h) => h.linear === linear && h.write === write);
    const known = new Set(before.map((h) => h.watch));
    for (const watch of hit) {
      if (known.has(watch)) continue;
      this.#hits.push({ watch, linear, parts, bytes, write, delivery, old, value: old });
    }
    return true;
  }

  /** Memory without side effects; 0 where a device answers. */
  #valueAt(parts: readonly Part[]): bigint {
    const { ram } = this.#cpu.machine;
    let value = 0n;
    for (const { machine, bytes } of parts.toReversed()) {
      for (let i = bytes - 1; i >= 0; i--) value = value << 8n | BigInt(ram[machine + i] ?? 0);
    }
    return value;
  }
}

/** An access in machine memory; what crosses into another page goes on at `next`. */
function partsOf(linear: number, physical: number, bytes: number, next: number): readonly Part[] {
  const first = Math.min(bytes, 4096 - (linear & 4095)), whole = { machine: physical >>> 0, bytes };
  if (first === bytes) return [whole];
  return [{ ...whole, bytes: first }, { machine: next >>> 0, bytes: bytes - first }];
}

function put<T, K extends keyof T>(to: T, name: K, value: T[K] | undefined): void {
  if (value === undefined) delete to[name];
  else to[name] = value;
}
