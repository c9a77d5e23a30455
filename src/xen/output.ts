/** What a guest has written, as far as it is kept. */

/** The last bytes of a stream, and how many there were in all. */
export class ByteLog {
  #bytes: Uint8Array;
  #total = 0;

  /** @param limit the most bytes that are kept */
  constructor(readonly limit: number) {
    this.#bytes = new Uint8Array(Math.min(limit, 4096));
  }

  push(byte: number): void {
    const { length } = this.#bytes;
    // Until it is full it has not gone round.
    if (this.#total === length && length < this.limit) {
      const grown = new Uint8Array(Math.min(this.limit, 2 * length));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes[this.#total++ % this.#bytes.length] = byte;
  }

  /** Bytes there were. */
  get total(): number {
    return this.#total;
  }
  /** Bytes that are not kept any longer. */
  get dropped(): number {
    return Math.max(0, this.#total - this.#bytes.length);
  }
  /** The kept bytes from a position in the stream on. */
  since(position: number): Uint8Array {
    const { length } = this.#bytes;
    const from = Math.max(position, this.dropped), at = from % length;
    const bytes = new Uint8Array(Math.max(0, this.#total - from));
    const first = Math.min(bytes.length, length - at);
    bytes.set(this.#bytes.subarray(at, at + first));
    bytes.set(this.#bytes.subarray(0, bytes.length - first), first);
    return bytes;
  }
  /** Whether the stream ends with these bytes. */
  endsWith(bytes: Uint8Array): boolean {
    if (bytes.length > this.#total - this.dropped) return false;
    const { length } = this.#bytes;
    for (let i = bytes.length, at = this.#total; i > 0;) {
      if (this.#bytes[--at % length] !== bytes[--i]) return false;
    }
    return true;
  }
}
