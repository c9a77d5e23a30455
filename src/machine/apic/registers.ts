/**
 * Registers of the local APIC as data: numbers, names, writable bits.
 * Source: SDM 3A table 11-1 (xAPIC, offsets are number * 16) and table 11-6 (x2APIC, MSR 800h +
 * number).
 *
 * @module
 */

/** Register numbers: MMIO offset / 16, or MSR - 800h. */
export const register = {
  id: 0x02,
  version: 0x03,
  tpr: 0x08,
  apr: 0x09,
  ppr: 0x0a,
  eoi: 0x0b,
  remoteRead: 0x0c,
  ldr: 0x0d,
  dfr: 0x0e,
  svr: 0x0f,
  isr: 0x10,
  tmr: 0x18,
  irr: 0x20,
  esr: 0x28,
  icrLow: 0x30,
  icrHigh: 0x31,
  lvtTimer: 0x32,
  lvtThermal: 0x33,
  lvtPerformance: 0x34,
  lvtLint0: 0x35,
  lvtLint1: 0x36,
  lvtError: 0x37,
  initialCount: 0x38,
  currentCount: 0x39,
  divide: 0x3e,
  selfIpi: 0x3f,
} as const;

/** Index into the state's `lvt`, in the order of the registers from 32h. */
export const lvt = { timer: 0, thermal: 1, performance: 2, lint0: 3, lint1: 4, error: 5 } as const;
export const lvtNames = ["timer", "thermal", "performance", "lint0", "lint1", "error"] as const;

/** Bits of an LVT entry. */
export const LVT_MASKED = 0x10000, LVT_REMOTE_IRR = 0x4000, LVT_LEVEL = 0x8000;

/** Writable bits of the LVT entries (SDM 3A figure 11-8); the rest is reserved or read-only. */
export const lvtWritable: readonly number[] = [
  0x700ff,
  0x107ff,
  0x107ff,
  0x1a7ff,
  0x1a7ff,
  0x100ff,
];

/** Bits of the error status register (SDM 3A figure 11-9). */
export const error = {
  sendIllegalVector: 0x20,
  receiveIllegalVector: 0x40,
  illegalRegister: 0x80,
} as const;

/** Timer modes, bits 18 and 17 of the timer's LVT entry. */
export const timerMode = { oneShot: 0, periodic: 1, tscDeadline: 2 } as const;

/** Version 14h, six LVT entries, no suppression of EOI broadcasts. */
export const localApicVersion = 0x00050014;

/** Nanoseconds of one count at divisor 1: the timer runs at 100 MHz. */
export const timerNanoseconds = 10;

/** MSRs of the local APIC. */
export const msr = { apicBase: 0x1b, tscDeadline: 0x6e0, x2apic: 0x800 } as const;

/** What may be written in x2APIC mode; bits outside raise #GP (SDM 3A 11.12.1.3). */
export const x2Writable: Readonly<Record<number, number>> = {
  [register.tpr]: 0xff,
  [register.eoi]: 0,
  [register.svr]: 0x3ff,
  [register.esr]: 0,
  [register.initialCount]: 0xffffffff,
  [register.divide]: 0x0b,
  [register.selfIpi]: 0xff,
  ...Object.fromEntries(lvtWritable.map((bits, i) => [register.lvtTimer + i, bits | 0x5000])),
};

/** Bits of a 256-bit register in its state of eight 32-bit words. */
export function getBit(words: readonly number[], vector: number): boolean {
  return (words[vector >> 5] >>> (vector & 31) & 1) !== 0;
}

export function setBit(words: number[], vector: number, value: boolean): void {
  const bit = 1 << (vector & 31);
  const word = words[vector >> 5];
  words[vector >> 5] = (value ? word | bit : word & ~bit) >>> 0;
}

/** The highest vector whose bit is set, or -1. */
export function highestBit(words: readonly number[]): number {
  for (let i = 7; i >= 0; i--) {
    if (words[i] !== 0) return i * 32 + 31 - Math.clz32(words[i]);
  }
  return -1;
}
