/**
 * What lies where in a guest's memory while it is filled: into RAM only, nothing on top of anything else.
 *
 * @module
 */
import { PC } from "../abi/boot/e820.ts";
import type { E820Range } from "./e820.ts";
import { BuilderError, hex, sizeText } from "./errors.ts";

/** A guest's memory as the builder sees it: guest-physical addresses and sizes in bytes. */
export interface GuestMemory {
  /** Bytes of RAM. */
  readonly size: number;
  write(gpa: number, bytes: Uint8Array): void;
  read(gpa: number, length: number): Uint8Array;
}

/** What the builder put where, for the shell: guest-physical, `end` is the byte after the last. */
export interface Region {
  readonly what: string;
  readonly start: number;
  readonly end: number;
}

const ZEROES = new Uint8Array(1 << 16);

/**
 * Puts things into a guest's memory: into RAM only, never on top of each other, and with a record
 * of what went where.
 */
export class Placement {
  readonly memory: GuestMemory;
  readonly map: readonly E820Range[];
  readonly file: string;
  readonly regions: Region[] = [];

  constructor(memory: GuestMemory, map: readonly E820Range[], file: string) {
    this.memory = memory;
    this.map = map;
    this.file = file;
  }

  /** Writes `bytes` at `gpa`; zeroes follow up to `size` bytes in all. */
  put(what: string, gpa: number, bytes: Uint8Array, size: number = bytes.length): void {
    this.claim(what, gpa, size);
    this.memory.write(gpa, bytes);
    this.#clear(gpa + bytes.length, gpa + size);
  }

  /** Takes a range without writing to it. */
  claim(what: string, gpa: number, size: number): void {
    this.#requireRam(what, gpa, size);
    const other = this.regions.find((r) => gpa < r.end && r.start < gpa + size);
    if (other && size > 0) {
      throw new BuilderError({
        file: this.file,
        field: `place of ${what}`,
        given: `${hex(gpa)} to ${hex(gpa + size)}, over ${other.what} at ${hex(other.start)}`,
        expected: "a place of its own",
      });
    }
    this.regions.push({ what, start: gpa, end: gpa + size });
  }

  /**
   * Finds room for `size` bytes and puts `bytes` there: the lowest place from `from` on, or the
   * highest below `below`. What lies in `[start, end)` of `avoid` is left free.
   */
  place(what: string, bytes: Uint8Array, where: Where): number {
    const gpa = this.find(what, bytes.length, where);
    this.put(what, gpa, bytes);
    return gpa;
  }

  /** The address {@link place} would take. */
  find(what: string, size: number, where: Where): number {
    const align = where.align ?? 16;
    const taken = [
      ...this.regions,
      ...(where.avoid ? [{ what: "", ...where.avoid }] : []),
    ].filter((r) => r.end > r.start);
    for (const ram of where.high ? this.#ram().toReversed() : this.#ram()) {
      const low = Math.max(ram.start, where.from ?? PLACE_MIN);
      const high = Math.min(ram.end, where.below ?? PC.fourGigabytes);
      const gpa = where.high
        ? highest(low, high, size, align, taken)
        : lowest(low, high, size, align, taken);
      if (gpa !== undefined) return gpa;
    }
    const range = `${hex(where.from ?? PLACE_MIN)} to ${hex(where.below ?? PC.fourGigabytes)}`;
    throw new BuilderError({
      file: this.file,
      field: `room for ${what}`,
      given: `none in ${sizeText(this.memory.size)} of memory`,
      expected: `${sizeText(size)} free from ${range}`,
    });
  }

  #ram(): { start: number; end: number }[] {
    return this.map.filter((r) => r.type === "ram")
      .map(({ base, length }) => ({ start: base, end: base + length }));
  }

  #requireRam(what: string, gpa: number, size: number): void {
    const inside = (r: { start: number; end: number }) => gpa >= r.start && gpa + size <= r.end;
    if (this.#ram().some(inside)) return;
    const top = Math.max(...this.#ram().map((r) => r.end));
    const below = gpa >= PC.highMemory && gpa + size > top;
    throw new BuilderError({
      file: this.file,
      field: `place of ${what}`,
      given: `${hex(gpa)} to ${hex(gpa + size)} in ${sizeText(this.memory.size)} of memory`,
      expected: below
        ? `at least ${sizeText(Math.ceil((gpa + size) / (1 << 20)) * (1 << 20))} of memory`
        : "a range of RAM",
    });
  }

  /** Clears what is not clear, a piece at a time, so that untouched frames stay untouched. */
  #clear(from: number, to: number): void {
    for (let at = from; at < to;) {
      const length = Math.min(to - at, ZEROES.length);
      if (!clear(this.memory.read(at, length))) {
        this.memory.write(at, ZEROES.subarray(0, length));
      }
      at += length;
    }
  }
}

function clear(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) return false;
  return true;
}

/** Below this are the interrupt vectors, the BIOS data area and what boot code likes to use. */
const PLACE_MIN = 0x10000;

/** Where {@link Placement.place} may look (bytes, guest-physical). */
export interface Where {
  readonly from?: number;
  /** The byte after the last that may be used. */
  readonly below?: number;
  readonly align?: number;
  /** From the top instead of from the bottom. */
  readonly high?: boolean;
  /** A range that is not recorded yet, but will be used. */
  readonly avoid?: { readonly start: number; readonly end: number };
}

function lowest(
  low: number,
  high: number,
  size: number,
  align: number,
  taken: readonly Region[],
): number | undefined {
  let gpa = Math.ceil(low / align) * align;
  for (;;) {
    if (gpa + size > high) return undefined;
    const other = taken.find((r) => gpa < r.end && r.start < gpa + size);
    if (!other) return gpa;
    gpa = Math.ceil(other.end / align) * align;
  }
}

function highest(
  low: number,
  high: number,
  size: number,
  align: number,
  taken: readonly Region[],
): number | undefined {
  let gpa = Math.floor((high - size) / align) * align;
  for (;;) {
    if (gpa < low) return undefined;
    const other = taken.find((r) => gpa < r.end && r.start < gpa + size);
    if (!other) return gpa;
    gpa = Math.floor((other.start - size) / align) * align;
  }
}
