/**
 * The monitor: who wants to see what a domain does stands here, between the scheduler and the
 * domain's engine. It stands before the engine while anything is armed, and goes away after; so
 * nothing is paid when nobody looks. It observes only: instruction counts, time and state are the
 * same with it and without.
 *
 * What is seen:
 * - execution of a linear address: the predecoded record of the instruction has a breakpoint before
 *   it (`cpu.hooks.hasBreakpoint`); guest memory is not touched;
 * - accesses to watched memory: watched pages stay out of the TLBs, and `cpu.hooks.watch` gives up
 *   the instruction before it commits; it is then run again by itself, and reported after;
 * - the end of a number of instructions (single-step);
 * - exits of a hardware virtual machine: its engine shows each before it handles it.
 */
import type { Exit, GuestEvent } from "../hvm/exit.ts";
import type { Intercepts, RegisterName } from "../hvm/ops.ts";
import type { Cpu } from "../machine/cpu.ts";
import { ABORT, ACCESS, CPU, FRAME, FRAME_FLAG, V } from "../machine/state.ts";
import { BareEngine } from "./bare.ts";
import type { Domain, Engine, SliceEnd } from "./domain.ts";
import { HvmEngine, type Observed } from "./hvm.ts";

/** Memory whose accesses are to be seen. */
export interface Watch {
  /** By linear address in whatever address space, or by machine address. */
  readonly space: "linear" | "machine";
  /** Ranges [from, to). Linear ones may lie anywhere in 64 bits, so they are `bigint`. */
  readonly ranges: readonly (readonly [from: bigint, to: bigint])[];
  readonly read: boolean;
  readonly write: boolean;
}

/** An access that a watch saw. */
export interface WatchHit {
  readonly watch: Watch;
  readonly linear: bigint;
  /** Machine address of the first byte. */
  readonly machine: number;
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
  /** The instruction is passed over without effect. */
  | { readonly kind: "skip" }
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
  #addresses: ReadonlySet<bigint> = new Set();
  /** Offsets in their page of the addresses: records do not know where their page is mapped. */
  #offsets: ReadonlySet<number> = new Set();
  #watches: readonly Watch[] = [];
  /** Instructions left of a step. */
  #left = Infinity;
  /** A step of one instruction was asked for: what is left of a longer one is none. */
  #one = false;
  /** Asked after each instruction while set: true ends the step. */
  #stepEnds: (() => boolean) | undefined;
  #wantsExits = false;
  /** The instruction whose breakpoint was reported last: restarted after a fault it does not count. */
  #passed = { rip: -1n, count: -1 };
  /** The instruction given up for a watch is run again. */
  #rerun = false;
  #hits: WatchHit[] = [];
  /** Where the one instruction began that is being run by itself. */
  #single: { readonly rip: bigint; readonly count: number } | undefined;
  /** An event was delivered instead of it. */
  #delivered = false;
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

  /** Linear addresses before whose instruction the observer is asked. */
  setAddresses(addresses: ReadonlySet<bigint>): void {
    const changed = new Set<number>();
    for (const a of this.#addresses) if (!addresses.has(a)) changed.add(Number(a & 0xfffn));
    for (const a of addresses) if (!this.#addresses.has(a)) changed.add(Number(a & 0xfffn));
    this.#addresses = new Set(addresses);
    this.#offsets = new Set([...addresses].map((a) => Number(a & 0xfffn)));
    this.#arm();
    if (this.#current) this.#invalidate(changed);
  }

  /** Code at these offsets of any frame is predecoded again. */
  #invalidate(offsets: ReadonlySet<number>): void {
    if (offsets.size === 0) return;
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

  setWatches(watches: readonly Watch[]): void {
    this.#watches = watches;
    this.#arm();
    if (this.#current) this.#armWatches(watches.length > 0);
  }
  #armWatches(on: boolean): void {
    const others = this.#cpu.i32[V.watching >> 2] & ~1;
    this.#cpu.i32[V.watching >> 2] = on ? others | 1 : others;
    this.#cpu.flushTlb();
  }

  /** Exits that the observer wants to see; undefined: none. */
  setExits(wanted: Intercepts | undefined): void {
    const { engine, domain } = this;
    if (!(engine instanceof HvmEngine)) {
      if (wanted === undefined) return;
      throw new Error("this domain runs on the bare processor: there are no exits to observe");
    }
    if (wanted === undefined && !this.#wantsExits) return;
    this.#wantsExits = wanted !== undefined;
    this.#arm();
    if (domain.state.kind === "destroyed") return;
    engine.observe(wanted);
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
    this.#cpu.i64[V.passing >> 3] = BigInt.asIntN(64, rip);
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
    this.#rerun = this.#delivered = false;
    this.#hits = [];
    this.#single = undefined;
    this.recent.length = 0;
    this.#stoppedAt = atExit && engine instanceof HvmEngine ? engine.pending : undefined;
    if (passing) this.pass();
    else this.#passed = { rip: -1n, count: -1 };
    return this.#stoppedAt;
  }

  get #armed(): boolean {
    return this.#addresses.size > 0 || this.#watches.length > 0 || this.#left !== Infinity ||
      this.#stepEnds !== undefined || this.#wantsExits;
  }
  get #current(): boolean {
    return this.domain.host.current === this.domain;
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
    if (engine instanceof HvmEngine) engine.observer = { exit: (exit) => this.#exit(exit) };
    else engine.hooks.reached = (kind) => REACHED[kind];
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
    if (exit.kind === "stopped") {
      // Not the guest's doing, and not counted as an exit of its.
      const { exits } = this.domain;
      if (--exits.stopped === 0) delete exits.stopped;
      return { stop: REACHED[exit.why as "breakpoint" | "watch"] };
    }
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
        ops.advance(vcpu, exit.length);
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
    hooks.hasBreakpoint = (low) => this.#offsets.has(low & 0xfff);
    hooks.watchesPage = (low, high, frame) => this.#watchesPage(low, high, frame);
    hooks.watch = (low, high, physical, bytes, access) =>
      this.#watch(low, high, physical, bytes, access);
    hooks.fault = () => this.#fault(before.fault);
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
      for (const name of ["hasBreakpoint", "watchesPage", "watch", "fault"] as const) {
        put(hooks, name, before[name]);
      }
      this.#cpu.i64[V.passing >> 3] = -1n;
    };
  }

  #load(): void {
    this.#own.load.call(this.engine);
    this.#leave ??= this.#enter();
    // Another domain had the processor since the breakpoint was passed.
    if (this.#passed.count === this.domain.count) {
      this.#cpu.i64[V.passing >> 3] = BigInt.asIntN(64, this.#passed.rip);
    }
    if (this.#watches.length) this.#armWatches(true);
    this.#invalidate(this.#offsets);
  }
  #unload(): void {
    if (this.#watches.length) this.#armWatches(false);
    this.#leave?.();
    this.#leave = undefined;
    this.#invalidate(this.#offsets);
    this.#own.unload.call(this.engine);
  }

  #run(budget: number): SliceEnd {
    const cpu = this.#cpu, { domain } = this;
    const until = cpu.now + budget;
    while (cpu.now < until) {
      const single = this.#rerun || this.#one || this.#stepEnds !== undefined;
      const before = cpu.count;
      this.#single = single ? { rip: this.observer.ip(), count: before } : undefined;
      const result = this.#own.run.call(
        this.engine,
        single ? 1 : Math.min(until - cpu.now, this.#left),
      );
      this.#single = undefined;
      const done = cpu.count - before;
      this.#left -= done;
      const stop = this.#after(result, done);
      if (stop) return stop;
      // A device ended the domain, or somebody paused it from within.
      if (domain.ending || domain.state.kind !== "running") return result;
      if (cpu.machine.due()) break;
    }
    return { kind: "budget" };
  }

  /** What a part of a run led to: the end of the slice, or undefined to go on. */
  #after(result: SliceEnd, done: number): SliceEnd | undefined {
    if (result.kind === "stop" && isReached(result.stop)) {
      const reached = result.stop.reached;
      // Such a stop is no exit that would have to be handled.
      if (this.engine instanceof HvmEngine) this.engine.pending = undefined;
      if (reached === "breakpoint") {
        const stop = this.#breakpoint();
        return stop === undefined ? undefined : { kind: "stop", stop };
      }
      this.#rerun = true;
      this.#hits = [];
      return undefined;
    }
    const delivered = this.#delivered;
    this.#delivered = false;
    if (result.kind === "end" || result.kind === "stop") return result;
    let stop = this.#reportHits(done);
    const stepped = done > 0 || delivered;
    const over = this.#left <= 0 || (this.#one && delivered) ||
      (stepped && this.#stepEnds?.());
    if (over) {
      this.clearStep();
      stop ??= this.observer.event({ kind: "step" });
      this.#atStep();
    }
    if (stop !== undefined) return { kind: "stop", stop };
    return result.kind === "budget" ? undefined : result;
  }

  #reportHits(done: number): unknown {
    const given = this.#rerun && done === 0;
    this.#rerun = false;
    // Given up by a fault, the instruction comes again: its accesses did not happen.
    const hits = this.#hits.filter((h) => !given || h.delivery)
      .map((h) => ({ ...h, value: this.#valueAt(h.machine, h.bytes) }));
    this.#hits = [];
    return hits.length > 0 ? this.observer.event({ kind: "watch", hits }) : undefined;
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
    // Zero until the interpreter runs again: accesses in between are the processor's own.
    cpu.i32[V.slice >> 2] = 0;
    if (single && single.count === cpu.count) {
      if (cpu.u64[CPU.rip >> 3] !== single.rip) {
        this.#delivered = true;
        return "stopped";
      }
    }
    return next?.();
  }

  #fault(next: Cpu["hooks"]["fault"]): boolean {
    const cpu = this.#cpu;
    cpu.i32[V.slice >> 2] = 0;
    if (this.#passed.count === this.domain.count && this.#passed.rip === cpu.u64[CPU.rip >> 3]) {
      cpu.i64[V.passing >> 3] = cpu.i64[CPU.rip >> 3];
    }
    return next?.() ?? false;
  }

  #watchesPage(low: number, high: number, frame: number): boolean {
    const page = BigInt(high >>> 0) << 32n | BigInt(low >>> 0) & ~0xfffn;
    const machine = BigInt(frame >>> 0) << 12n;
    return this.#watches.some(({ space, ranges }) => {
      const from = space === "linear" ? page : machine;
      return ranges.some((r) => r[0] < from + 4096n && r[1] > from);
    });
  }

  #watch(low: number, high: number, physical: number, bytes: number, access: number): number {
    const write = (access & ACCESS.write) !== 0;
    const linear = BigInt(high >>> 0) << 32n | BigInt(low >>> 0);
    const machine = physical >>> 0;
    const hit = this.#watches.filter((w) => {
      if (write ? !w.write : !w.read) return false;
      const from = w.space === "linear" ? linear : BigInt(machine);
      return w.ranges.some((r) => r[0] < from + BigInt(bytes) && r[1] > from);
    });
    if (hit.length === 0) return ABORT.none;
    const delivery = this.#cpu.i32[V.slice >> 2] === 0;
    if (!this.#rerun && !delivery) return ABORT.watch;
    const old = this.#valueAt(machine, bytes);
    for (const watch of hit) {
      const known = this.#hits.some((h) =>
        h.watch === watch && h.linear === linear && h.write === write
      );
      if (known) continue;
      this.#hits.push({ watch, linear, machine, bytes, write, delivery, old, value: old });
    }
    if (delivery) this.#cpu.stop();
    return ABORT.none;
  }

  /** Memory without side effects; 0 where a device answers. */
  #valueAt(machine: number, bytes: number): bigint {
    const { ram } = this.#cpu.machine;
    let value = 0n;
    for (let i = bytes - 1; i >= 0; i--) value = value << 8n | BigInt(ram[machine + i] ?? 0);
    return value;
  }
}

function put<T, K extends keyof T>(to: T, name: K, value: T[K] | undefined): void {
  if (value === undefined) delete to[name];
  else to[name] = value;
}
