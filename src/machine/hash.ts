/**
 * Hashes of state. Memory counts as an order-free sum over its frames, kept up to date from the
 * frames written since; everything else as the bytes of its block.
 *
 * Not cryptographic: 64 bits, made to tell states apart that a simulated machine may reach.
 *
 * @module
 */
/** 64 bits as two unsigned halves. */
export type Hash = readonly [low: number, high: number];

export const ZERO: Hash = [0, 0];

const rotate = (x: number, n: number) => x << n | x >>> (32 - n);

function finish(h: number): number {
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ h >>> 16) >>> 0;
}

/** Hash of words in the making: {@linkcode Hashing.add} them, then {@linkcode Hashing.end}. */
class Hashing {
  #a = 0x9e3779b9 | 0;
  #b = 0x7f4a7c15 | 0;
  #any = 0;

  add(words: Int32Array, from: number, to: number): void {
    let a = this.#a, b = this.#b, any = this.#any;
    for (let i = from; i < to; i++) {
      const w = words[i];
      any |= w;
      a = Math.imul(rotate(a ^ w, 13), 0x5bd1e995);
      b = Math.imul(rotate(b + w | 0, 17) ^ w, 0x2c1b3c6d);
    }
    this.#a = a;
    this.#b = b;
    this.#any = any;
  }
  /** Words that are all zero give zero, so that fresh memory costs nothing. */
  end(): Hash {
    return this.#any ? [finish(this.#a), finish(this.#b)] : ZERO;
  }
}

/** Hash of words that are apart from others. */
export function hashWords(words: Int32Array, from: number, to: number): Hash {
  const hashing = new Hashing();
  hashing.add(words, from, to);
  return hashing.end();
}

/** Hash of bytes, their number included. */
export function hashBytes(bytes: Uint8Array): Hash {
  const words = new Int32Array(Math.ceil(bytes.length / 4) + 1);
  new Uint8Array(words.buffer).set(bytes);
  words[words.length - 1] = bytes.length ^ 0x5a5a5a5a;
  return hashWords(words, 0, words.length);
}

/**
 * Hash of some ranges of bytes, whose ends are multiples of 4. One changed word always changes it:
 * each step maps the words before it, and the word, one to one.
 */
export function hashRanges(
  bytes: Uint8Array,
  ranges: readonly (readonly [from: number, to: number])[],
): Hash {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const words = new Int32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength >>> 2);
  const hashing = new Hashing();
  for (const [from, to] of ranges) hashing.add(words, from / 4, to / 4);
  return hashing.end();
}

/** The hash of something at a place: the same thing elsewhere gives another. */
export function placed(place: number, [low, high]: Hash): Hash {
  if (low === 0 && high === 0) return ZERO;
  const p = Math.imul(place + 1, 0x9e3779b1);
  return [finish(low ^ p), finish(high + rotate(p, 11) | 0)];
}

export const plus = (a: Hash, b: Hash): Hash => [(a[0] + b[0]) >>> 0, (a[1] + b[1]) >>> 0];
export const minus = (a: Hash, b: Hash): Hash => [(a[0] - b[0]) >>> 0, (a[1] - b[1]) >>> 0];

/** 16 hexadecimal digits. */
export const hashText = ([low, high]: Hash): string =>
  high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
