/**
 * AMD's performance counters PerfEvtSel0 to 3 and PerfCtr0 to 3 (APM 2 13.2; BKDG of family 10h, 3.14).
 *
 * Two events are counted, both exactly: 0C0h, retired instructions (as {@linkcode Cpu.count} has them,
 * and each interrupt and exception delivered), and 076h, clocks not halted (one a nanosecond). Of
 * other events, of edges, and with a counter mask or its inversion nothing is counted: the counter
 * stays at its value.
 *
 * The registers hold what was counted up to the last instruction boundary.
 */
import { EFER } from "../abi/x86/cr.ts";
import type { Cpu } from "./cpu.ts";
import { CPU, V } from "./state.ts";
import { COUNTERS } from "./system/msrs.ts";

/** Bits of PerfEvtSel; those of the upper half are numbered from 0 there. */
export const EVENT_SELECT = {
  user: 1 << 16,
  system: 1 << 17,
  edge: 1 << 18,
  interrupt: 1 << 20,
  enable: 1 << 22,
  invert: 1 << 23,
  counterMask: 0xff << 24,
  /** Bits 11 to 8 of the event. */
  eventHigh: 0xf,
  guest: 1 << 8,
  host: 1 << 9,
} as const;
const B = EVENT_SELECT;
export const EVENT = { clocks: 0x76, instructions: 0xc0 } as const;
/** The values that a counter can have. */
const VALUES = 2 ** 48;

/** Index of a select's lower half in 32-bit words, of a counter in 64-bit ones. */
const select = (n: number) => (CPU.perfEvtSel0 >> 2) + 2 * n;
const counter = (n: number) => (CPU.perfCtr0 >> 3) + n;
const FIRST = select(0);

export class PerformanceCounters {
  /** What was counted last: at which count and time, and in which mode that is counted. */
  #count = 0;
  #time = 0;
  #system = false;
  #guest = false;
  /** Events that were delivered since. */
  #delivered = 0;

  constructor(readonly cpu: Cpu) {}

  get enabled(): boolean {
    const { i32 } = this.cpu;
    return ((i32[FIRST] | i32[FIRST + 2] | i32[FIRST + 4] | i32[FIRST + 6]) & B.enable) !== 0;
  }

  /**
   * At a boundary: from here on is counted, in the mode that the processor is in. What changes the
   * mode ends the run of the interpreter (Meaning.serialize), so that each has one.
   */
  begin(): void {
    const { cpu } = this;
    this.#count = cpu.counted;
    this.#time = cpu.now;
    this.#delivered = 0;
    this.#system = cpu.i32[V.cpl >> 2] === 0;
    this.#guest = cpu.i32[V.nonRoot >> 2] !== 0;
  }

  /** An interrupt or exception was delivered: it counts as an instruction. */
  delivered(): void {
    this.#delivered++;
  }

  /** How many instructions can run, `limit` at most: up to the one whose counting interrupts. */
  most(limit: number): number {
    const { i32, u64 } = this.cpu;
    let most = limit;
    for (let n = 0; n < COUNTERS; n++) {
      if (this.#event(n) === undefined) continue;
      const rest = VALUES - Number(u64[counter(n)]) % VALUES;
      if (i32[select(n)] & B.interrupt) most = Math.min(most, rest);
    }
    return most;
  }

  /** Brings the registers up to date. */
  settle(): void {
    const { cpu } = this;
    const instructions = cpu.counted - this.#count + this.#delivered, clocks = cpu.now - this.#time;
    this.#count += instructions - this.#delivered;
    this.#time += clocks;
    this.#delivered = 0;
    for (let n = 0; n < COUNTERS; n++) {
      if (this.#event(n) === undefined) continue;
      const value = this.#after(n, instructions, clocks);
      cpu.u64[counter(n)] = BigInt(value % VALUES);
      if (value >= VALUES && cpu.i32[select(n)] & B.interrupt) cpu.hooks.counterOverflow?.();
    }
  }

  /** A counter as the instruction that reads it finds it: what came before is counted. */
  read(n: number): bigint {
    const { cpu } = this, running = cpu.counted > cpu.count;
    if (!running || !this.enabled) return cpu.u64[counter(n)];
    const instructions = cpu.counted - 1 - this.#count + this.#delivered;
    return BigInt(this.#after(n, instructions, cpu.now - 1 - this.#time) % VALUES);
  }

  /** One of the registers is written, selects first; that holds from the next instruction on. */
  write(register: number, value: bigint): void {
    const { cpu } = this;
    if (cpu.counted > cpu.count) {
      if (this.enabled) this.settle();
      else this.begin();
    }
    cpu.u64[(CPU.perfEvtSel0 >> 3) + register] = value;
    cpu.endSlice();
  }

  /** What a counter is after so much. */
  #after(n: number, instructions: number, clocks: number): number {
    const event = this.#event(n), value = Number(this.cpu.u64[counter(n)]);
    if (event === undefined || !this.#counts(n)) return value;
    return value + (event === EVENT.clocks ? clocks : instructions);
  }

  /** What an enabled counter counts; undefined: nothing. */
  #event(n: number): number | undefined {
    const { i32 } = this.cpu, low = i32[select(n)], high = i32[select(n) + 1];
    const off = !(low & B.enable) || low & (B.edge | B.invert | B.counterMask) ||
      high & B.eventHigh;
    const event = low & 0xff;
    return !off && (event === EVENT.clocks || event === EVENT.instructions) ? event : undefined;
  }

  /** By privilege level; by host or guest where SVM is on, else not at all if that is asked. */
  #counts(n: number): boolean {
    const { i32 } = this.cpu, low = i32[select(n)], high = i32[select(n) + 1];
    if (!(low & (this.#system ? B.system : B.user))) return false;
    if (!(high & (B.guest | B.host))) return true;
    return (i32[CPU.efer >> 2] & EFER.SVME) !== 0 &&
      (high & (this.#guest ? B.guest : B.host)) !== 0;
  }
}
