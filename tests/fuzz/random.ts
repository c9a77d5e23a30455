/** A seeded generator: the same seed gives the same run on every machine. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) | 1;
    for (let i = 0; i < 8; i++) this.u32();
  }
  /** 32 bits (xorshift). */
  u32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return Math.imul(x, 0x9e3779b1) >>> 0;
  }
  /** A whole number from 0 to `n` - 1. */
  below(n: number): number {
    return Math.floor(this.u32() / 2 ** 32 * n);
  }
  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
  u64(): bigint {
    return BigInt(this.u32()) << 32n | BigInt(this.u32());
  }
  bytes(length: number): Uint8Array {
    const words = new Uint32Array((length + 3) >>> 2);
    for (let i = 0; i < words.length; i++) words[i] = this.u32();
    return new Uint8Array(words.buffer, 0, length);
  }
}
