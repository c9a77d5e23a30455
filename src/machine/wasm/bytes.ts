/** The number formats of the WebAssembly binary format (LEB128). */

/** A growing buffer of bytes that writes them. */
export class Bytes {
  #data = new Uint8Array(256);
  length = 0;

  #reserve(more: number): void {
    if (this.length + more <= this.#data.length) return;
    const next = new Uint8Array(Math.max(this.#data.length * 2, this.length + more));
    next.set(this.#data.subarray(0, this.length));
    this.#data = next;
  }

  u8(value: number): void {
    if (this.length === this.#data.length) this.#reserve(1);
    this.#data[this.length++] = value;
  }

  raw(values: ArrayLike<number>): void {
    this.#reserve(values.length);
    this.#data.set(values, this.length);
    this.length += values.length;
  }

  /** Unsigned LEB128 of a u32. */
  u32(value: number): void {
    value >>>= 0;
    while (value >= 0x80) {
      this.u8((value & 0x7f) | 0x80);
      value >>>= 7;
    }
    this.u8(value);
  }

  /** Signed LEB128 of an i32. */
  s32(value: number): void {
    value |= 0;
    for (;;) {
      const low = value & 0x7f;
      value >>= 7;
      if ((value === 0 && !(low & 0x40)) || (value === -1 && low & 0x40)) return this.u8(low);
      this.u8(low | 0x80);
    }
  }

  /** Signed LEB128 of an i64. */
  s64(value: bigint): void {
    value = BigInt.asIntN(64, value);
    for (;;) {
      const low = Number(value & 0x7fn);
      value >>= 7n;
      if ((value === 0n && !(low & 0x40)) || (value === -1n && low & 0x40)) return this.u8(low);
      this.u8(low | 0x80);
    }
  }

  text(value: string): void {
    const utf8 = new TextEncoder().encode(value);
    this.u32(utf8.length);
    this.raw(utf8);
  }

  view(): Uint8Array<ArrayBuffer> {
    return this.#data.subarray(0, this.length);
  }
}
