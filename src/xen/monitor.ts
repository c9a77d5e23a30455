/**
 * The monitor: what one observer wants to see of what a domain does. While anything is armed it is
 * among the hooks that the domain's engine calls, and among the processor's observers while the domain
 * is on it; so nothing is paid when nobody looks, and several may look at once. It observes only:
 * instruction counts, time and state are the same with it and without.
 *
 * What is seen:
 * - execution of a linear address: the predecoded record of the instruction has a breakpoint before
 *   it (`hasBreakpointAt`); guest memory is not touched;
 * - accesses to watched memory: watched pages stay out of the TLBs, `watch` notes them, and the run
 *   ends behind the instruction that makes them, whoever executes it;
 * - the end of a number of instructions (single-step);
 * - exits of a hardware virtual machine: its engine shows each before it handles it.
 */
import type { Exit } from "../hvm/exit.ts";
import type { ExitWish } from "../hvm/exit_kinds.ts";
import type { Cpu } from "../machine/cpu.ts";
import type { CpuMarks, CpuObserver } from "../machine/observation.ts";
import { ACCESS, CPU, FRAME, FRAME_FLAG } from "../machine/state.ts";
import type { EngineHooks, Verdict } from "./engine.ts";
import { HvmEngine } from "./hvm.ts";
import type { Vcpu } from "./vcpu.ts";
import { type Part, type Watch, Watches } from "./watches.ts";

export type { Verdict };

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

/** What one observer sees of one vCPU. */
export class Monitor implements EngineHooks, CpuObserver, CpuMarks {
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
  /** Gives the exits that are wanted; undefined: none. */
  #wanted: (() => readonly ExitWish[]) | undefined;
  /** The hardware has not been told yet. */
  #newExits = false;
  /** The instruction whose breakpoint was reported last. */
  #passed = { rip: -1n, count: -1 };
  #hits: WatchHit[] = [];
  /** Where the one instruction began that is being run by itself. */
  #single: { readonly rip: bigint; readonly count: number } | undefined;
  /** The exit the domain stands at. */
  #stoppedAt: Exit | undefined;
  /** Exits since something was armed, the newest last, at how many instructions of the host; the oldest are dropped. */
  readonly recent: { readonly exit: Exit; readonly count: number }[] = [];
  /** Instructions of the part of a run that has just ended, and whether an event was delivered in it. */
  #ran = { instructions: 0, delivered: false };

  constructor(readonly vcpu: Vcpu, readonly observer: Observer) {
    this.#cpu = vcpu.cpu;
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
    if ((this.#current && this.#running) || !this.#armed) this.#refreshCode();
  }

  #refreshCode(): void {
    if (this.#stale.size > 0) this.#invalidate(this.#stale);
    this.#stale.clear();
  }

  /** Code at these offsets of any frame is predecoded again. */
  #invalidate(offsets: Iterable<number>): void {
    const { machine } = this.#cpu, { frameTable } = machine;
    const masks = [0, 0];
    for (const offset of offsets) masks[offset >> 11 & 1] |= 1 << (offset >> 6 & 31);
    for (let at = 0; at < frameTable.length; at += FRAME.size / 4) {
      if (!(frameTable[at] & FRAME_FLAG.code)) continue;
      const code = at + FRAME.code / 4;
      if (frameTable[code] & masks[0] || frameTable[code + 1] & masks[1]) {
        // Frames' marks say what any processor has predecoded.
        machine.dropCode(at / (FRAME.size / 4));
      }
    }
  }

  setWatch(watch: Watch, on: boolean): void {
    this.#watches.set(watch, on);
    this.#arm();
    this.#cpu.observation.armWatches();
  }
  get watches(): boolean {
    return this.#watches.size > 0;
  }

  /** Exits that the observer wants to see, asked for before the domain runs; undefined: none. */
  setExits(wanted: (() => readonly ExitWish[]) | undefined): void {
    if (wanted === undefined && !this.#wanted) return;
    if (!(this.vcpu.engine instanceof HvmEngine)) {
      throw new Error("this domain runs on the bare processor: there are no exits to observe");
    }
    this.#wanted = wanted;
    this.#newExits = true;
    this.#arm();
    if (this.#running || !this.#armed) this.#applyExits();
  }
  get exits(): readonly ExitWish[] | undefined {
    return this.#wanted?.();
  }
  #applyExits(): void {
    const { engine, domain: { state } } = this.vcpu;
    if (!this.#newExits) return;
    this.#newExits = false;
    if (engine instanceof HvmEngine && state.kind !== "destroyed") engine.observe();
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
    if (this.#current) this.#cpu.observation.pass(rip);
    this.#passed = { rip, count: this.vcpu.count };
  }

  /** Going on from where the domain stands does not report the breakpoint there. */
  get passing(): boolean {
    return this.#passed.count === this.vcpu.count && this.#passed.rip === this.observer.ip();
  }
  /** The exit the domain stands at, and that can be answered. */
  get stoppedAt(): Exit | undefined {
    const { engine } = this.vcpu;
    const here = engine instanceof HvmEngine && engine.pending === this.#stoppedAt;
    return here ? this.#stoppedAt : undefined;
  }
  /** The host was put into a saved state; the exit at which the domain stands in it, if it does. */
  loaded(passing: boolean, atExit: boolean): Exit | undefined {
    const { engine } = this.vcpu;
    this.#hits = [];
    this.#single = undefined;
    this.recent.length = 0;
    const pending = engine instanceof HvmEngine ? engine.pending : undefined;
    this.#stoppedAt = atExit && pending !== "unanswered" ? pending : undefined;
    if (passing) this.pass();
    else this.#passed = { rip: -1n, count: -1 };
    return this.#stoppedAt;
  }

  get #armed(): boolean {
    return this.#addresses.size > 0 || this.#watches.size > 0 || this.#left !== Infinity ||
      this.#stepEnds !== undefined || this.#wanted !== undefined;
  }
  get #current(): boolean {
    return this.vcpu.loaded;
  }
  get #running(): boolean {
    return this.vcpu.domain.runs && this.vcpu.ready;
  }

  /** It is among the hooks, and its marks are the processor's, while anything is armed. */
  #arm(): void {
    const { hooks } = this.vcpu.engine, at = hooks.indexOf(this), armed = at >= 0;
    const { marked } = this.#cpu;
    if (this.#armed === armed) return;
    if (!armed) {
      hooks.push(this);
      marked.push(this);
      if (this.#current) this.#enter();
    } else {
      hooks.splice(at, 1);
      marked.splice(marked.indexOf(this), 1);
      this.#leave();
    }
  }
  /** Its domain is no more. */
  clear(): void {
    for (const address of [...this.#addresses]) this.setAddress(address, false);
    for (const watch of [...this.#watches.all]) this.setWatch(watch, false);
    this.setExits(undefined);
    this.clearStep();
  }

  exit(exit: Exit): Verdict | undefined {
    this.recent.push({ exit, count: this.#cpu.machine.count });
    if (this.recent.length > 2 * RECENT) this.recent.splice(0, RECENT);
    if (!this.#wanted) return undefined;
    const verdict = this.observer.exit(exit);
    if (verdict?.kind === "stop") this.#stoppedAt = exit;
    return verdict;
  }

  /** The domain stands at an exit: that is dealt with so, and not handled when it goes on. */
  answer(verdict: Verdict): void {
    const { engine } = this.vcpu, exit = this.stoppedAt;
    if (!(engine instanceof HvmEngine) || !exit) {
      throw new Error("the domain stands at no exit that could be answered");
    }
    this.vcpu.domain.inPlaceOf(this.vcpu, () => {
      if (engine.carryOut(exit, verdict)) engine.pending = this.#stoppedAt = undefined;
    });
  }

  /** Among the processor's observers while the domain is on it. */
  #enter(): void {
    this.#cpu.observers.push(this);
    // Nobody looked, or another had the processor, since the breakpoint was passed.
    if (this.#passed.count === this.vcpu.count) this.#cpu.observation.pass(this.#passed.rip);
  }
  #leave(): void {
    const { observers } = this.#cpu, at = observers.indexOf(this);
    if (at < 0) return;
    observers.splice(at, 1);
    if (observers.length === 0) this.#cpu.observation.passNone();
  }

  attached(): void {
    this.#enter();
  }
  detaching(): void {
    this.#leave();
  }

  started(): void {
    this.#refreshCode();
    this.#applyExits();
  }
  begin(): number {
    const single = this.#one || this.#stepEnds !== undefined;
    this.#single = single ? { rip: this.observer.ip(), count: this.#cpu.count } : undefined;
    return single ? 1 : this.#left;
  }
  ran(instructions: number): void {
    const single = this.#single;
    this.#single = undefined;
    this.#left -= instructions;
    // A step in which nothing was executed, and the address has changed all the same.
    const delivered = single !== undefined && instructions === 0 &&
      this.observer.ip() !== single.rip;
    this.#ran = { instructions, delivered };
  }

  /** What is to be told at the end of a part of a run. */
  done(): unknown {
    let stop = this.#reportHits();
    const { instructions, delivered } = this.#ran;
    const stepped = instructions > 0 || delivered;
    const over = this.#left <= 0 || (this.#one && delivered) || (stepped && this.#stepEnds?.());
    if (over) {
      this.clearStep();
      stop ??= this.observer.event({ kind: "step" });
      for (const hook of [...this.vcpu.engine.hooks]) hook.stepEnded();
    }
    return stop;
  }

  #reportHits(): unknown {
    if (this.#hits.length === 0) return undefined;
    const hits = this.#hits.map((h) => ({ ...h, value: this.#valueAt(h.parts) }));
    this.#hits = [];
    return this.observer.event({ kind: "watch", hits });
  }

  /** A step that ends at a breakpoint has reached it: going on passes it. */
  stepEnded(): void {
    const address = this.observer.linearIp();
    if (!this.#addresses.has(address)) return;
    this.observer.event({ kind: "execute", address });
    this.pass();
  }

  breakpoint(): unknown {
    const address = this.observer.linearIp();
    const stop = this.#addresses.has(address)
      ? this.observer.event({ kind: "execute", address })
      : undefined;
    this.pass();
    return stop;
  }

  // --- what the processor asks ---

  hasBreakpoint(low: number, high: number): boolean {
    return this.#addresses.has(BigInt(high >>> 0) << 32n | BigInt(low >>> 0));
  }
  hasBreakpointAt(offset: number): boolean {
    return this.#offsets.has(offset);
  }
  watchesPage(low: number, high: number, frame: number): boolean {
    return this.#watches.inPage(low, high, frame);
  }
  givenUp(): void {
    this.#hits = [];
  }
  /** In a single step, a changed address now means that an event was delivered. */
  isOver(): boolean {
    const cpu = this.#cpu, single = this.#single;
    return single?.count === cpu.count && cpu.u64[CPU.rip >> 3] !== single.rip;
  }

  watch(
    low: number,
    high: number,
    physical: number,
    length: number,
    access: number,
    delivery: boolean,
    next: number,
  ): boolean {
    const parts = partsOf(low, physical, length, next);
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
