/**
 * Bytes in a page that a guest shares: a ring of them and two free-running indices, of which the
 * guest may write anything into either.
 *
 * @module
 */

import type { RingPlace } from "./pages.ts";

/** A page of a domain. */
export interface RingPage {
  /** 32 bits at a multiple of 4. */
  word(offset: number): number;
  setWord(offset: number, value: number): void;
  /** A copy. */
  read(offset: number, length: number): Uint8Array;
  write(offset: number, bytes: Uint8Array): void;
}

/** A page that is nobody's memory. */
export function plainPage(bytes: Uint8Array = new Uint8Array(4096)): RingPage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    word: (offset) => view.getUint32(offset, true),
    setWord: (offset, value) => view.setUint32(offset, value, true),
    read: (offset, length) => bytes.slice(offset, offset + length),
    write: (offset, written) => bytes.set(written, offset),
  };
}

/** One direction. What it holds is read anew with every call, each index once. */
export class ByteRing {
  constructor(readonly page: RingPage, readonly place: RingPlace) {}

  /** How many bytes wait between two indices; undefined: more than there can be. */
  #between(consumed: number, produced: number): number | undefined {
    const used = (produced - consumed) >>> 0;
    return used > this.place.size ? undefined : used;
  }

  /** Some of the bytes that wait; they stay. Undefined: the indices make no sense. */
  peek(most: number): Uint8Array | undefined {
    const { page, place: { data, size, indices } } = this;
    const consumed = page.word(indices), used = this.#between(consumed, page.word(indices + 4));
    if (used === undefined) return undefined;
    const length = Math.min(used, most), from = consumed % size;
    if (from + length <= size) return page.read(data + from, length);
    const bytes = new Uint8Array(length), first = size - from;
    bytes.set(page.read(data + from, first));
    bytes.set(page.read(data, length - first), first);
    return bytes;
  }
  /** So many of the bytes that wait are consumed. */
  skip(length: number): void {
    const { page, place: { indices } } = this;
    page.setWord(indices, page.word(indices) + length);
  }
  /** Some of the bytes that wait; they are consumed. */
  take(most: number): Uint8Array | undefined {
    const bytes = this.peek(most);
    if (bytes?.length) this.skip(bytes.length);
    return bytes;
  }
  /** Puts in as many as there is room for. @returns how many; undefined: the indices make no sense */
  put(bytes: Uint8Array): number | undefined {
    const { page, place: { data, size, indices } } = this;
    const produced = page.word(indices + 4), used = this.#between(page.word(indices), produced);
    if (used === undefined) return undefined;
    const length = Math.min(bytes.length, size - used), to = produced % size;
    const first = Math.min(length, size - to);
    if (first) page.write(data + to, bytes.subarray(0, first));
    if (first < length) page.write(data, bytes.subarray(first, length));
    if (length) page.setWord(indices + 4, produced + length);
    return length;
  }
  /** Nothing is in it. */
  clear(): void {
    this.page.setWord(this.place.indices, 0);
    this.page.setWord(this.place.indices + 4, 0);
  }
}
