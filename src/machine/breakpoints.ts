/**
 * Breakpoints of the debug registers on execution and on data (SDM 3 17.2). They use what debuggers
 * use: breakpoint records, and pages kept out of the TLBs; without them nothing is paid.
 */
import { CPU, debugRegister } from "./state.ts";

const EXECUTE = 0, WRITE = 1, IO = 2, READ_OR_WRITE = 3;
/** Bits L0 to G3. */
export const ENABLED = 0xff;

/** Bytes of breakpoint `n`: LEN 0, 1, 3 stand for 1, 2, 4 bytes, 2 for 8. */
const lengthOf = (dr7: number, n: number): number => [1, 2, 8, 4][dr7 >> (18 + 4 * n) & 3];

/**
 * What an access to ports `port` to `port + bytes - 1` meets with CR4.DE set: bits B0 to B3, those of
 * breakpoints that match without being enabled too, if one that is enabled does; else 0.
 */
export function portBreakpoints(
  dr7: number,
  addresses: readonly number[],
  port: number,
  bytes: number,
): number {
  let matched = 0, hit = 0;
  addresses.forEach((address, n) => {
    if ((dr7 >> (16 + 4 * n) & 3) !== IO) return;
    const length = lengthOf(dr7, n), start = address - address % length;
    if (start >= port + bytes || start + length <= port) return;
    matched |= 1 << n;
    hit |= dr7 >> 2 * n & 3;
  });
  return hit ? matched : 0;
}

export class DebugBreakpoints {
  readonly #i32: Int32Array;
  readonly #u32: Uint32Array;
  /** DR7 and the low halves of DR0 to DR3, as last looked at. */
  readonly #seen = [0x400, 0, 0, 0, 0];
  /** There are breakpoints on execution; on data. */
  execute = false;
  data = false;

  constructor(memory: ArrayBuffer) {
    this.#i32 = new Int32Array(memory);
    this.#u32 = new Uint32Array(memory);
  }

  get #dr7(): number {
    return this.#i32[CPU.dr7 >> 2];
  }

  /** Looks whether the registers have changed since the last time. */
  changed(): boolean {
    const seen = this.#seen, dr7 = this.#dr7;
    if (dr7 === seen[0] && !(dr7 & ENABLED)) return false;
    let different = dr7 !== seen[0];
    seen[0] = dr7;
    for (let n = 0; n < 4; n++) {
      const address = this.#u32[debugRegister(n) >> 2];
      different ||= address !== seen[n + 1];
      seen[n + 1] = address;
    }
    if (!different) return false;
    const kinds = [0, 1, 2, 3].filter((n) => dr7 >> 2 * n & 3).map((n) => dr7 >> (16 + 4 * n) & 3);
    this.execute = kinds.includes(EXECUTE);
    this.data = kinds.includes(WRITE) || kinds.includes(READ_OR_WRITE);
    return true;
  }

  /** Bits B0 to B3 of the enabled breakpoints that an access hits; `write` undefined: execution. */
  match(linear: number, linearHigh: number, bytes: number, write?: boolean): number {
    const dr7 = this.#dr7;
    let hits = 0;
    for (let n = 0; n < 4; n++) {
      if (!(dr7 >> 2 * n & 3)) continue;
      const kind = dr7 >> (16 + 4 * n) & 3;
      const wanted = write === undefined
        ? kind === EXECUTE
        : kind === READ_OR_WRITE || (kind === WRITE && write);
      if (!wanted || this.#i32[(debugRegister(n) >> 2) + 1] !== linearHigh) continue;
      // An address is taken aligned to the length.
      const length = lengthOf(dr7, n);
      const start = this.#u32[debugRegister(n) >> 2] - this.#u32[debugRegister(n) >> 2] % length;
      if (start < (linear >>> 0) + bytes && (linear >>> 0) < start + length) hits |= 1 << n;
    }
    return hits;
  }

  /** Does an enabled breakpoint on data lie in the page? */
  inPage(linear: number, linearHigh: number): boolean {
    return this.data && this.match(linear & ~4095, linearHigh, 4096, true) !== 0;
  }
}
