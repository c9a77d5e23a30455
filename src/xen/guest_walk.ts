/**
 * The walk of a guest's page tables as the hypervisor makes it for shadow paging: 2-level with PSE,
 * PAE and 4-level (SDM 3 chapter 4), over the P2M. All results are plain numbers in place: this runs
 * on every shadow fault.
 */
import type { Machine } from "../machine/machine.ts";
import { PAGE_CHECK } from "../machine/mmu/walk.ts";
import { FRAME, FRAME_FLAG, V } from "../machine/state.ts";
import { virtualization } from "../machine/virtualization.ts";
import type { P2M } from "./p2m.ts";

/** How a guest translates; the number of levels it reads from memory, but for PAE's registers. */
export const PAGING = { none: 0, twoLevel: 1, pae: 2, fourLevel: 3 } as const;
export type Paging = typeof PAGING[keyof typeof PAGING];

/** Bits of an access, as in a page-fault error code. */
export const WRITE = 2, USER = 4, FETCH = 16;
const P = 1, RW = 2, US = 4, A = 0x20, D = 0x40, PS = 0x80, RESERVED = 8;
const XD = 0x8000_0000 | 0;

/** The control registers that decide about translations. */
export interface PagingRegisters {
  paging: Paging;
  /** Words of CR3, and of the four PDPTEs (8). */
  cr3: number;
  cr3High: number;
  readonly pdptes: Int32Array;
  wp: boolean;
  pse: boolean;
  nxe: boolean;
  smep: boolean;
  smap: boolean;
  /** Pages of 1 GByte, and 4-MByte pages above 4 GBytes, are there. */
  gigabyte: boolean;
  pse36: boolean;
}

export class GuestWalk {
  readonly #words: Int32Array;
  readonly #frameTable: Int32Array;
  /** Bits of the high word of an entry that lie above the physical-address width, without bit 63. */
  readonly #reservedHigh: number;
  /** Bits of the low word of an entry of level 4 that must be 0. */
  readonly #reservedTop: number;

  /** Entries read, from the top: count, place in machine words (-1: no memory), halves. */
  steps = 0;
  readonly place: Int32Array = new Int32Array(4);
  readonly low: Int32Array = new Int32Array(4);
  readonly high: Int32Array = new Int32Array(4);
  /** Guest frame of the table each was read from. */
  readonly table: Int32Array = new Int32Array(4);
  /** Level of the entry that ended the walk: 1 a page, 2 and 3 large pages. */
  level = 0;
  /** Guest frame of the 4-KByte page. */
  frame = 0;
  /** Error code of the fault the guest is to get. */
  errorCode = 0;
  /** Why: one of PAGE_CHECK. */
  check = 0;
  /** A supervisor may write where the entries say read-only: CR0.WP is clear. */
  override = false;

  constructor(machine: Machine, readonly p2m: P2M) {
    this.#words = machine.words;
    this.#frameTable = machine.frameTable;
    const reserved = machine.cpu.u64[V.reservedHigh >> 3];
    this.#reservedHigh = Number(BigInt.asIntN(32, reserved >> 32n)) & 0x7fff_ffff;
    this.#reservedTop = virtualization[machine.cpu.model].pml4Reserved;
  }

  /**
   * Walks for an access (WRITE, USER and FETCH). True: allowed, and the accessed and dirty bits are
   * set. False: the guest gets #PF with `errorCode`.
   *
   * @param access bits WRITE, USER, FETCH
   * @param open a supervisor access that SMAP does not keep from user pages (EFLAGS.AC)
   */
  walk(r: PagingRegisters, low: number, high: number, access: number, open: boolean): boolean {
    this.steps = 0;
    this.override = false;
    if (r.paging === PAGING.none) {
      this.frame = this.p2m.canonical(low >>> 12);
      this.level = 4;
      return true;
    }
    const found = r.paging === PAGING.twoLevel
      ? this.#twoLevel(r, low, access)
      : this.#wide(r, low, high, access);
    if (!found) return false;
    this.frame = this.p2m.canonical(this.frame);
    if (!this.#allowed(r, access, open)) return false;
    this.#setAccessed((access & WRITE) !== 0);
    return true;
  }

  /** The last entry read; without any, the page-directory pointer for the address. */
  lastEntry(r: PagingRegisters, low: number): bigint {
    const n = this.steps - 1, pointer = 2 * (low >>> 30);
    const [lo, hi] = n < 0
      ? [r.pdptes[pointer], r.pdptes[pointer + 1]]
      : [this.low[n], this.high[n]];
    return BigInt(hi >>> 0) << 32n | BigInt(lo >>> 0);
  }

  /** Reads an entry; words without memory behind them read as ones. */
  #read(guestFrame: number, offset: number, bytes: 4 | 8): void {
    const n = this.steps++, frame = this.p2m.canonical(guestFrame);
    const machine = this.p2m.machineFrame(frame);
    const at = machine < 0 ? -1 : machine * 1024 + (offset >>> 2);
    this.place[n] = at;
    this.table[n] = frame;
    this.low[n] = at < 0 ? -1 : this.#words[at];
    this.high[n] = at < 0 ? -1 : bytes === 8 ? this.#words[at + 1] : 0;
  }

  #fault(r: PagingRegisters, access: number, bits: number, check: number): false {
    this.check = check;
    const fetch = r.smep || (r.nxe && r.paging !== PAGING.twoLevel) ? access & FETCH : 0;
    this.errorCode = access & (WRITE | USER) | fetch | bits;
    return false;
  }

  #twoLevel(r: PagingRegisters, low: number, access: number): boolean {
    // CR3 has 36 address bits where it was loaded in 64-bit mode; here 32 count.
    this.#read(r.cr3 >>> 12 | (r.cr3High & 0xf) << 20, low >>> 22 << 2, 4);
    let entry = this.low[0];
    if (!(entry & P)) return this.#fault(r, access, 0, PAGE_CHECK.present);
    if (entry & PS && r.pse) {
      // PSE-36: bits 13 to 20 are address bits 32 to 39; bit 21 is reserved.
      const wide = entry >>> 13 & 0xff;
      const reserved = r.pse36 ? wide & this.#reservedHigh : wide;
      if (entry & 0x20_0000 || reserved) {
        return this.#fault(r, access, P | RESERVED, PAGE_CHECK.reserved);
      }
      this.level = 2;
      this.frame = (entry >>> 22 << 10) + wide * 0x10_0000 + (low >>> 12 & 0x3ff);
      return true;
    }
    this.#read(entry >>> 12, (low >>> 12 & 0x3ff) << 2, 4);
    entry = this.low[1];
    if (!(entry & P)) return this.#fault(r, access, 0, PAGE_CHECK.present);
    this.level = 1;
    this.frame = entry >>> 12;
    return true;
  }

  #wide(r: PagingRegisters, low: number, high: number, access: number): boolean {
    const long = r.paging === PAGING.fourLevel;
    const reservedHigh = this.#reservedHigh | (long ? 0 : 0x7ff0_0000) | (r.nxe ? 0 : XD);
    let frame: number, level: number;
    if (long) {
      frame = r.cr3 >>> 12 | (r.cr3High & 0xf) << 20;
      level = 4;
    } else {
      const n = low >>> 30;
      if (!(r.pdptes[2 * n] & P)) return this.#fault(r, access, 0, PAGE_CHECK.present);
      frame = r.pdptes[2 * n] >>> 12 | (r.pdptes[2 * n + 1] & 0xf) << 20;
      level = 2;
    }
    for (;; level--) {
      this.#read(frame, index(low, high, level) << 3, 8);
      const lo = this.low[this.steps - 1], hi = this.high[this.steps - 1];
      if (!(lo & P)) return this.#fault(r, access, 0, PAGE_CHECK.present);
      const large = (lo & PS) !== 0 && (level === 2 || level === 3);
      const inside = large
        ? level === 2 ? 0x1f_e000 : r.gigabyte ? 0x3fff_e000 : PS
        : level === 4
        ? this.#reservedTop
        : 0;
      if (hi & reservedHigh || lo & inside) {
        return this.#fault(r, access, P | RESERVED, PAGE_CHECK.reserved);
      }
      frame = lo >>> 12 | (hi & 0xf) << 20;
      if (level > 1 && !large) continue;
      this.level = level;
      const within = level === 1 ? 0 : level === 2 ? 0x1ff : 0x3_ffff;
      this.frame = (frame & ~within) + (low >>> 12 & within);
      return true;
    }
  }

  /** Rights of all entries together (SDM 3 4.6). */
  #allowed(r: PagingRegisters, access: number, open: boolean): boolean {
    let rights = RW | US, xd = 0;
    for (let n = 0; n < this.steps; n++) {
      rights &= this.low[n];
      xd |= this.high[n];
    }
    const fetch = access & FETCH;
    if (access & USER) {
      if (!(rights & US)) return this.#fault(r, access, P, PAGE_CHECK.user);
      if (access & WRITE && !(rights & RW)) return this.#fault(r, access, P, PAGE_CHECK.write);
    } else {
      if (rights & US) {
        if (fetch && r.smep) return this.#fault(r, access, P, PAGE_CHECK.smep);
        if (!fetch && r.smap && !open) return this.#fault(r, access, P, PAGE_CHECK.smap);
      }
      if (access & WRITE && !(rights & RW)) {
        if (r.wp) return this.#fault(r, access, P, PAGE_CHECK.write);
        this.override = true;
      }
    }
    if (fetch && r.nxe && xd < 0 && r.paging !== PAGING.twoLevel) {
      return this.#fault(r, access, P, PAGE_CHECK.fetch);
    }
    return true;
  }

  /** As the processor does it at the end of a walk that succeeds. Nothing derived becomes stale. */
  #setAccessed(write: boolean): void {
    for (let n = 0; n < this.steps; n++) {
      const old = this.low[n];
      const now = write && n === this.steps - 1 ? old | A | D : old | A;
      if (now === old) continue;
      this.low[n] = now;
      const at = this.place[n];
      if (at < 0) continue;
      this.#words[at] = now;
      this.#frameTable[(at >>> 10) * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
    }
  }
}

/** Index of a linear address in a table of 512 entries at a level, 1 to 4. */
export function index(low: number, high: number, level: number): number {
  if (level === 1) return low >>> 12 & 0x1ff;
  if (level === 2) return low >>> 21 & 0x1ff;
  if (level === 3) return (low >>> 30 | high << 2) & 0x1ff;
  return high >>> 7 & 0x1ff;
}
