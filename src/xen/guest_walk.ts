/**
 * The walk of a guest's page tables as the hypervisor makes it for shadow paging: 2-level with PSE,
 * PAE and 4-level (SDM 3 chapter 4), over the P2M. All results are plain numbers in place: this runs
 * on every shadow fault.
 */
import type { Machine } from "../machine/machine.ts";
import {
  ENTRY,
  frameOf,
  indexOf,
  MODES,
  PAGING,
  type Paging,
  type PagingFormat,
  PSE36,
} from "../machine/mmu/modes.ts";
import { PAGE_CHECK } from "../machine/mmu/walk.ts";
import { FRAME, FRAME_FLAG, V } from "../machine/state.ts";
import { virtualization } from "../machine/virtualization.ts";
import type { P2M } from "./p2m.ts";

/** Bits of an access, as in a page-fault error code. */
export const WRITE = 2, USER = 4, FETCH = 16;
const { P, W: RW, U: US, A, D, PS } = ENTRY, RESERVED = 8;
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

/** Those of a guest without paging. */
export const unpaged = (): PagingRegisters => ({
  paging: PAGING.none,
  cr3: 0,
  cr3High: 0,
  pdptes: new Int32Array(8),
  wp: true,
  pse: false,
  nxe: false,
  smep: false,
  smap: false,
  gigabyte: true,
  pse36: true,
});

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
    if (!this.#find(r, MODES[r.paging], low, high, access)) return false;
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
  #read(guestFrame: number, index: number, bytes: number): void {
    const n = this.steps++, frame = this.p2m.canonical(guestFrame);
    const machine = this.p2m.machineFrame(frame);
    const at = machine < 0 ? -1 : machine * 1024 + index * (bytes / 4);
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

  /** Reads entry after entry, to that of the page. */
  #find(
    r: PagingRegisters,
    mode: PagingFormat,
    low: number,
    high: number,
    access: number,
  ): boolean {
    let level: number = mode.levels;
    // CR3 has 36 address bits where it was loaded in 64-bit mode, though 32 count without it.
    let frame = r.cr3 >>> 12 | (r.cr3High & 0xf) << 20;
    if (mode.pointers) {
      const n = low >>> 30;
      if (!(r.pdptes[2 * n] & P)) return this.#fault(r, access, 0, PAGE_CHECK.present);
      frame = r.pdptes[2 * n] >>> 12 | (r.pdptes[2 * n + 1] & 0xf) << 20;
    }
    for (;; level--) {
      this.#read(frame, indexOf(mode, level, low, high), mode.bytes);
      const lo = this.low[this.steps - 1], hi = this.high[this.steps - 1];
      if (!(lo & P)) return this.#fault(r, access, 0, PAGE_CHECK.present);
      const large = (lo & PS) !== 0 && mode.large[level] !== 0 && (mode.bytes === 8 || r.pse);
      if (this.#reserved(r, mode, level, large, lo, hi)) {
        return this.#fault(r, access, P | RESERVED, PAGE_CHECK.reserved);
      }
      if (level === 1 || large) {
        this.level = level;
        this.frame = frameOf(mode, level, lo, hi, low);
        return true;
      }
      frame = frameOf(mode, 1, lo, hi, 0);
    }
  }

  /** A bit is set that must be 0 (SDM 3 tables 4-4 to 4-20). */
  #reserved(
    r: PagingRegisters,
    mode: PagingFormat,
    level: number,
    large: boolean,
    lo: number,
    hi: number,
  ): boolean {
    if (large && lo & mode.large[level]) return true;
    if (mode.bytes === 4) {
      const above = large ? lo >>> PSE36.shift & PSE36.mask : 0;
      return (r.pse36 ? above & this.#reservedHigh : above) !== 0;
    }
    const high = this.#reservedHigh | (mode.pointers ? 0x7ff0_0000 : 0) | (r.nxe ? 0 : XD);
    const inside = large && level === 3 && !r.gigabyte ? PS : level === 4 ? this.#reservedTop : 0;
    return (hi & high) !== 0 || (lo & inside) !== 0;
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
