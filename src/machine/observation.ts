/**
 * Who watches what a processor executes: observers from outside, and its own debug registers. For
 * both there are breakpoint records and pages kept out of the TLBs; without them nothing is paid.
 */
import { DebugBreakpoints } from "./breakpoints.ts";
import type { Cpu } from "./cpu.ts";
import { ABORT, ACCESS, CPU, INTERRUPTIBILITY, V, WATCHING } from "./state.ts";
import { isAmd } from "./vendors.ts";

/** Who watches what the processor executes. */
export interface CpuObserver {
  /**
   * An access while watches are armed; `delivery` is the processor's own, of an event. True: `run`
   * returns "watch" once the instruction or the delivery is done. Where it goes on in another page,
   * that one lies at `next`.
   */
  watch(
    linear: number,
    linearHigh: number,
    physical: number,
    bytes: number,
    access: number,
    delivery: boolean,
    next: number,
  ): boolean;
  /** What made the accesses that `watch` saw was given up: they will come again or not at all. */
  givenUp(): void;
  /** Whether a run is to stop before the instruction at a linear address. */
  hasBreakpoint(low: number, high: number): boolean;
  /** Before anything is delivered: whether the run is over, as something was. */
  isOver(): boolean;
}

/**
 * Where somebody wants to watch, just now or when what he watches is on the processor again: records
 * and TLBs are made so that they need not be made anew at every switch.
 */
export interface CpuMarks {
  /** A page stays out of the TLBs. */
  watchesPage(linear: number, linearHigh: number, frame: number): boolean;
  /** A record stands before code with that offset in its page: records do not know where that is mapped. */
  hasBreakpointAt(offset: number): boolean;
  /** There are such pages. */
  readonly watches: boolean;
}

export class Observation {
  readonly #debug: DebugBreakpoints;
  /** Data breakpoints met by what is under way: their trap comes when it is done. */
  #trapped = 0;
  /** Watched memory was accessed by what is under way. */
  #watched = false;
  /** The next instruction could not be fetched: V.abort says why. */
  #unfetched = false;
  /** The instruction whose breakpoint was reported last: given up and run again it is the same one. */
  #passed = { rip: -1n, count: -1 };

  constructor(readonly cpu: Cpu) {
    this.#debug = new DebugBreakpoints(cpu.memory.buffer as ArrayBuffer);
  }

  /** Nothing is under way, and nothing was reported. */
  reset(): void {
    this.#watched = this.#unfetched = false;
    this.#trapped = 0;
    this.passNone();
  }

  /** Nobody watches. */
  get none(): boolean {
    return this.cpu.observers.length === 0 && !this.#debug.execute && !this.#debug.data;
  }
  /** What is under way has met a watch or a breakpoint. */
  get met(): boolean {
    return this.#watched || this.#trapped !== 0;
  }
  /** A run returns "watch" before anything more is delivered. */
  get watched(): boolean {
    return this.#watched;
  }

  /** The debug registers may have changed: then what was predecoded and translated must look at them. */
  arm(): void {
    if (this.#debug.changed()) this.#armDebug();
  }
  #armDebug(): void {
    const { cpu, cpu: { i32 } } = this;
    cpu.predecoder.reset();
    const others = i32[V.watching >> 2] & ~WATCHING.debugRegisters;
    i32[V.watching >> 2] = this.#debug.data ? others | WATCHING.debugRegisters : others;
    cpu.flushTlb();
  }

  /** There are pages to watch, or no more, or others: accesses ask, and TLBs are filled anew. */
  armWatches(): void {
    const { cpu, cpu: { i32 } } = this, others = i32[V.watching >> 2] & ~WATCHING.observers;
    const any = cpu.marked.some((m) => m.watches);
    i32[V.watching >> 2] = any ? others | WATCHING.observers : others;
    cpu.flushTlb();
  }

  // --- accesses ---

  /** An access to watched memory: the run ends when what makes it is done. */
  access(
    low: number,
    high: number,
    physical: number,
    bytes: number,
    access: number,
    next: number,
  ): void {
    const delivery = !this.cpu.inSlice;
    for (const observer of this.cpu.observers) {
      if (observer.watch(low, high, physical, bytes, access, delivery, next)) this.#watched = true;
    }
    if (this.#debug.data) {
      this.#trapped |= this.#debug.match(low, high, bytes, (access & ACCESS.write) !== 0);
    }
    if (this.met) this.cpu.endSlice();
  }

  watchesPage(low: number, high: number, frame: number): boolean {
    return this.cpu.marked.some((m) => m.watchesPage(low, high, frame)) ||
      this.#debug.inPage(low, high);
  }

  /** What met data breakpoints is done. */
  trap(): void {
    this.cpu.i32[CPU.pendingDebug >> 2] |= this.#trapped;
    this.#trapped = 0;
  }

  /** What is under way ends without having been done. */
  givenUp(): void {
    this.#trapped = 0;
    if (!this.#watched) return;
    this.#watched = false;
    for (const observer of this.cpu.observers) observer.givenUp();
  }

  watchedDone(): "watch" | undefined {
    if (!this.#watched) return undefined;
    this.#watched = false;
    return "watch";
  }

  // --- breakpoints on execution ---

  /** The breakpoint at an instruction pointer was reported: the next instruction there passes it. */
  pass(rip: bigint): void {
    this.#passed = { rip, count: this.cpu.count };
  }
  /** Breakpoints are reported wherever they are met, from the next instruction on. */
  passNone(): void {
    this.#passed = { rip: -1n, count: -1 };
    this.cpu.i64[V.passing >> 3] = -1n;
  }

  /** A breakpoint record is to stand before the instruction at a linear address. */
  marks(low: number, high: number): boolean {
    return this.cpu.marked.some((m) => m.hasBreakpointAt(low & 4095)) ||
      this.#debugHits(low, high) !== 0;
  }
  #observed(low: number, high: number): boolean {
    return this.cpu.observers.some((o) => o.hasBreakpoint(low, high));
  }
  #debugHits(low: number, high: number): number {
    return this.#debug.execute ? this.#debug.match(low, high, 1) : 0;
  }

  /** An instruction was fetched, or could not be. */
  fetched(done: boolean): void {
    this.#unfetched = !done;
  }

  /**
   * A fetch has failed where a breakpoint is: that comes first (SDM 3 table 6-2), and the fetch again
   * when it has been passed.
   */
  beforeFetch(): boolean {
    if (!this.#unfetched) return false;
    this.#unfetched = false;
    const { i32, u64, codeAddress: { low, high } } = this.cpu;
    if (u64[V.passing >> 3] === u64[CPU.rip >> 3]) return false;
    const here = this.#debugHits(low, high) !== 0 || this.#observed(low, high);
    if (here) i32[V.abort >> 2] = ABORT.none;
    return here;
  }

  /**
   * A breakpoint record was reached. Whoever watches from outside comes first and is told once; then
   * the debug registers' #DB is due ("debug"). Undefined: run on, past it.
   */
  reached(): "breakpoint" | "debug" | undefined {
    const { i32, u64, count, codeAddress: { low, high } } = this.cpu, rip = u64[CPU.rip >> 3];
    const reported = this.#passed.count === count && this.#passed.rip === rip;
    if (!reported && this.#observed(low, high)) return "breakpoint";
    const hits = this.#debugHits(low, high);
    // On Intel's processors MOV SS holds back instruction breakpoints too (SDM 3 6.8.3).
    const inhibited = (i32[CPU.interruptibility >> 2] & INTERRUPTIBILITY.movSs) !== 0 &&
      !isAmd(i32, "mov-ss.breakpoints");
    if (hits && !inhibited) {
      i32[CPU.pendingDebug >> 2] |= hits;
      return "debug";
    }
    u64[V.passing >> 3] = rip;
  }
}
