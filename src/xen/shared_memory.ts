/** Words of machine memory that the hypervisor shares with guests: written by the machine's one door. */
import type { Machine } from "../machine/machine.ts";

export class SharedMemory {
  readonly #bytes = new Uint8Array(8);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #one = this.#bytes.subarray(0, 1);
  readonly #two = this.#bytes.subarray(0, 2);
  readonly #four = this.#bytes.subarray(0, 4);

  constructor(readonly machine: Machine) {}

  /** A byte at a machine address. */
  byte(at: number): number {
    return this.machine.ram[at];
  }
  setByte(at: number, value: number): void {
    this.#one[0] = value;
    this.machine.write(at, this.#one);
  }
  /** 32 bits, unsigned. `at` is a multiple of 4. */
  word(at: number): number {
    return this.machine.words[at >>> 2] >>> 0;
  }
  setWord(at: number, value: number): void {
    this.#view.setUint32(0, value, true);
    this.machine.write(at, this.#four);
  }
  /** 16 bits, at a multiple of 2. */
  half(at: number): number {
    const { ram } = this.machine;
    return ram[at] | ram[at + 1] << 8;
  }
  setHalf(at: number, value: number): void {
    this.#view.setUint16(0, value, true);
    this.machine.write(at, this.#two);
  }
  /** 64 bits, as far as numbers are exact: what is beyond is Infinity. */
  long(at: number): number {
    const high = this.word(at + 4);
    return high >= 2 ** 21 ? Infinity : high * 2 ** 32 + this.word(at);
  }
  /** 64 bits. */
  setLong(at: number, value: bigint): void {
    this.#view.setBigUint64(0, BigInt.asUintN(64, value), true);
    this.machine.write(at, this.#bytes);
  }

  /** Bit `n` of an array of bits from a machine address on. */
  bit(at: number, n: number): boolean {
    return (this.machine.ram[at + (n >>> 3)] >>> (n & 7) & 1) !== 0;
  }
  /** Sets a bit, or clears it; true if it was set. */
  setBit(at: number, n: number, on: boolean): boolean {
    const byte = at + (n >>> 3), old = this.machine.ram[byte], bit = 1 << (n & 7);
    const value = on ? old | bit : old & ~bit;
    if (value !== old) this.setByte(byte, value);
    return (old & bit) !== 0;
  }
}
