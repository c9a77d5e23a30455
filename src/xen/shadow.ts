/**
 * Shadow paging: the processor walks tables that the hypervisor derives from the guest's, with
 * machine frames in place of guest frames. The 2004 idea of the VMX changes in Xen (SHM_full_32),
 * for 2-level, PAE and 4-level guests, and for those whose paging is off.
 *
 * An entry is derived when the processor misses it, and dropped when the guest's entry it was
 * derived from is written: frames that are shadowed as tables are kept from writes, so that every
 * write comes here. Nothing is ever out of date, and what a guest sees depends neither on the size
 * of the pool nor on what is in it. Each vCPU has shadows of its own, by its own control registers; a
 * write that one of them lets through to what another has derived from is told to that one.
 *
 * - Present means that the guest's entries were present and their accessed bits are set.
 * - Writable means, besides, that the dirty bit is set and that the frame is no shadowed table.
 * - Large pages of the guest are split; the rights of their one entry stand in the entry above.
 */
import { VECTOR } from "../abi/x86/vectors.ts";
import { CR0, CR4, EFER, RFLAGS } from "../abi/x86/cr.ts";
import type { Exit } from "../hvm/exit.ts";
import { GUEST, type HvmOps, type HvmVcpu } from "../hvm/ops.ts";
import type { Fault } from "../machine/events.ts";
import { indexOf, MODES, PAGES_ABSENT, PAGING, pagingOf } from "../machine/mmu/modes.ts";
import { PAGE_CHECK } from "../machine/mmu/walk.ts";
import type { Frames } from "./frames.ts";
import { FETCH, GuestWalk, type PagingRegisters, unpaged, USER, WRITE } from "./guest_walk.ts";
import type { P2M } from "./p2m.ts";
import { KIND, type ShadowKind, ShadowPool } from "./shadow_pool.ts";

const P = 1, RW = 2, US = 4, A = 0x20, D = 0x40;
const XD = 0x8000_0000 | 0;
const { WP: CR0_WP } = CR0, { PSE: CR4_PSE, SMEP: CR4_SMEP, SMAP: CR4_SMAP } = CR4, { NXE } = EFER;
/** Shadow tables have the format of 4-level paging; where the root is of PAE paging, without its top. */
const SHADOW = MODES[PAGING.fourLevel];
const AC = BigInt(RFLAGS.AC);

/** What became of a #PF that made the guest leave. */
const OUTCOME = {
  /** The shadow has what was missing. */
  filled: 0,
  /** It is the guest's own. */
  guest: 1,
  /** There is no memory, or it may not be written. */
  device: 2,
  /** A write to a shadowed table, or by a supervisor whose CR0.WP is clear. */
  write: 3,
} as const;
type Outcome = typeof OUTCOME[keyof typeof OUTCOME];

/** Fills with no instruction between them after which the scheduler gets its turn. */
const FRUITLESS = 10_000;
/** A table written so often in a row is dropped: it may be none any more. */
const WRITES_TO_DROP = 8;

/** Kinds by the guest's paging and the level of the table. */
const KINDS: readonly (readonly ShadowKind[])[] = [
  [],
  [0, KIND.pt32, KIND.pd32],
  [0, KIND.ptPae, KIND.pdPae],
  [0, KIND.pt64, KIND.pd64, KIND.pdpt64, KIND.pml4],
];

/** How much shadow paging has done, for statistics. */
export interface ShadowCounts {
  /** #PF that made the guest leave. */
  faults: number;
  /** Of these: completed by deriving an entry. */
  fills: number;
  /** The guest's own. */
  guestFaults: number;
  /** Accesses to devices or ROM. */
  devices: number;
  /** Writes completed by the emulator. */
  writes: number;
  /** Roots installed. */
  roots: number;
}

/** Bytes of shadow memory that a domain gets if none are asked for, as Xen counts: 1 MB a vCPU and 8 KB a MB. */
export function defaultShadowMemory(vcpus: number, memory: number): number {
  return Math.max(1 << 20, vcpus * (1 << 20) + Math.ceil(memory / (1 << 20)) * 8192);
}

/** The paths of a few translations; with so little nearly every one is derived anew. */
export const LEAST_SHADOW_MEMORY = 16 * 4096;

export class Shadow {
  readonly pool: ShadowPool;
  readonly walk: GuestWalk;
  readonly counts: ShadowCounts = {
    faults: 0,
    fills: 0,
    guestFaults: 0,
    devices: 0,
    writes: 0,
    roots: 0,
  };
  readonly registers: PagingRegisters = unpaged();
  /** The handler for HvmOps.enter. */
  readonly pageFault = (low: number, high: number, code: number): boolean =>
    this.#pageFault(low, high, code);
  #installed = false;
  /** Of the last fault: what became of it. */
  #outcome: Outcome = OUTCOME.filled;
  #written = -1;
  #writes = 0;
  #lastCount = -1;
  #fruitless = 0;
  readonly #told = (address: number, length: number) => this.#memoryWritten(address, length);
  readonly #p2mTold = (guestFrame: number) => this.#p2mChanged(guestFrame);
  readonly #gateTold = () => this.#gateMoved();

  constructor(
    readonly p2m: P2M,
    readonly ops: HvmOps,
    readonly vcpu: HvmVcpu,
    frames: Frames,
    owner: number,
    bytes: number,
  ) {
    this.pool = new ShadowPool(p2m, frames, owner, bytes / 4096);
    this.walk = new GuestWalk(p2m.machine, p2m);
    p2m.machine.onWrite.add(this.#told);
    p2m.onChange.add(this.#p2mTold);
    p2m.onGate.add(this.#gateTold);
    ops.setShadowRoot(vcpu, this.pool.address(0));
  }

  destroy(): void {
    this.pool.clearAll();
    this.p2m.machine.onWrite.delete(this.#told);
    this.p2m.onChange.delete(this.#p2mTold);
    this.p2m.onGate.delete(this.#gateTold);
  }

  /** Guest frame and place of a machine address, for writes from outside. */
  #memoryWritten(address: number, length: number): void {
    for (let at = address; at < address + length;) {
      const end = Math.min(address + length, at - at % 4096 + 4096);
      // Of aliases (ROM) none can be written.
      const guest = this.p2m.guestFrame(at >>> 12);
      if (guest >= 0 && this.pool.isTable(guest)) this.written(guest, at % 4096, end - at);
      at = end;
    }
  }

  #p2mChanged(guestFrame: number): void {
    this.pool.grow();
    this.pool.clearLeaves(guestFrame);
    this.dropTable(guestFrame);
  }

  /** All that was derived may lead elsewhere now. */
  #gateMoved(): void {
    this.drop();
    this.sync();
    this.ops.flushTranslations(this.vcpu);
  }

  // --- the guest's registers ---

  /** Installs the root that the guest's control registers ask for, if they ask for another one now. */
  sync(): void {
    const { guest } = this.vcpu, r = this.registers;
    const cr0 = guest[GUEST.cr0], cr4 = guest[GUEST.cr4], efer = guest[GUEST.efer];
    const paging = pagingOf(cr0, cr4, efer);
    r.wp = (cr0 & CR0_WP) !== 0;
    r.smep = (cr4 & CR4_SMEP) !== 0;
    r.smap = (cr4 & CR4_SMAP) !== 0;
    const pse = (cr4 & CR4_PSE) !== 0, nxe = (efer & NXE) !== 0;
    let same = this.#installed && paging === r.paging;
    // What an entry means depends on these.
    if (pse !== r.pse || nxe !== r.nxe || !same) this.pool.clearAll();
    if (pse !== r.pse || nxe !== r.nxe) same = false;
    r.paging = paging;
    r.pse = pse;
    r.nxe = nxe;
    if (paging !== PAGING.none) {
      if (guest[GUEST.cr3] !== r.cr3 || guest[GUEST.cr3 + 1] !== r.cr3High) same = false;
    }
    if (paging === PAGING.pae) {
      for (let n = 0; n < 8; n++) {
        if (guest[GUEST.pdptes + n] !== r.pdptes[n]) same = false;
        r.pdptes[n] = guest[GUEST.pdptes + n];
      }
    }
    r.cr3 = guest[GUEST.cr3];
    r.cr3High = guest[GUEST.cr3 + 1];
    if (same) return;
    this.#installed = true;
    this.#install();
  }

  /** Large pages that the guest's processor lacks: bits of PAGES_ABSENT. */
  lackPages(absent: number): void {
    const r = this.registers;
    const gigabyte = !(absent & PAGES_ABSENT.gigabyte), pse36 = !(absent & PAGES_ABSENT.pse36);
    if (r.gigabyte === gigabyte && r.pse36 === pse36) return;
    r.gigabyte = gigabyte;
    r.pse36 = pse36;
    this.drop();
  }

  /** MOV to CR3 of a value without reserved bits. */
  loadCr3(value: bigint): void {
    this.ops.setCr(this.vcpu, 3, value);
    this.sync();
  }

  #install(): void {
    const { pool, registers: r } = this;
    this.counts.roots++;
    pool.begin();
    if (r.paging === PAGING.fourLevel) {
      pool.root = 0;
      pool.root = pool.get(KIND.pml4, this.#cr3Frame(), 0);
    } else {
      pool.root = 0;
      for (let n = 0; n < 4; n++) {
        const slot = this.#pointed(n, false);
        if (slot < 0) pool.clear(0, n);
        else pool.set(0, n, slot, pool.address(slot) | P, 0);
      }
    }
    this.ops.setShadowRoot(this.vcpu, pool.address(pool.root));
  }

  #cr3Frame(): number {
    const { cr3, cr3High } = this.registers;
    return this.p2m.canonical(cr3 >>> 12 | (cr3High & 0xf) << 20);
  }

  /** The directory behind pointer `n` of the PAE format, -1 if there is none. */
  #pointed(n: number, make: boolean): number {
    const { pool, registers: r } = this;
    let kind: ShadowKind, guest: number, part = 0;
    if (r.paging === PAGING.none) {
      kind = KIND.directory;
      guest = n << 18;
    } else if (r.paging === PAGING.twoLevel) {
      kind = KIND.pd32;
      guest = this.#cr3Frame();
      part = n;
    } else {
      if (!(r.pdptes[2 * n] & P)) return -1;
      kind = KIND.pdPae;
      guest = this.p2m.canonical(r.pdptes[2 * n] >>> 12 | (r.pdptes[2 * n + 1] & 0xf) << 20);
    }
    return make ? pool.get(kind, guest, part) : pool.find(kind, guest, part);
  }

  // --- faults ---

  #pageFault(low: number, high: number, code: number): boolean {
    const { cpu } = this.vcpu.on;
    this.counts.faults++;
    this.#outcome = this.resolve(low, high, code);
    // The #PF of a shadow is nobody's but the hypervisor's.
    cpu.raised = this.#outcome === OUTCOME.guest ? this.#guestFault(low, high) : undefined;
    if (this.#outcome !== OUTCOME.filled) return false;
    if (cpu.count !== this.#lastCount) {
      this.#lastCount = cpu.count;
      this.#fruitless = 0;
    } else if (++this.#fruitless >= FRUITLESS) {
      // The engine sees an exit; what was filled is there.
      this.#fruitless = 0;
      return false;
    }
    return true;
  }

  /** The guest's own #PF, as its own tables explain it. */
  #guestFault(low: number, high: number): Fault {
    const { walk, ops, vcpu } = this;
    return {
      vector: VECTOR.PF,
      errorCode: walk.errorCode,
      check: walk.check,
      a: BigInt(high >>> 0) << 32n | BigInt(low >>> 0),
      b: walk.lastEntry(this.registers, low),
      rip: ops.getRegister(vcpu, "rip"),
      count: vcpu.on.cpu.count,
    };
  }

  /** Deals with a #PF at a linear address, with the hardware's error code. */
  resolve(low: number, high: number, code: number): Outcome {
    const { walk, registers: r, p2m, pool } = this;
    const access = code & (WRITE | USER | FETCH);
    if (!walk.walk(r, low, high, access, this.#smapOpen(access))) {
      this.counts.guestFaults++;
      return OUTCOME.guest;
    }
    // SMAP counts for the processor's own accesses whatever EFLAGS.AC: it says so of a page it has.
    if (code & P && !(code & 8) && this.#present(low, high, access)) {
      walk.errorCode = code & (P | WRITE | USER);
      walk.check = PAGE_CHECK.smap;
      this.counts.guestFaults++;
      return OUTCOME.guest;
    }
    if (p2m.machineFrame(walk.frame) < 0 || (access & WRITE && !p2m.writable(walk.frame))) {
      this.counts.devices++;
      return OUTCOME.device;
    }
    if (access & WRITE && (walk.override || pool.isTable(walk.frame))) {
      if (walk.override || !this.#tooManyWrites(walk.frame)) {
        this.counts.writes++;
        return OUTCOME.write;
      }
    }
    this.#fill(low, high);
    this.counts.fills++;
    return OUTCOME.filled;
  }

  /** EFLAGS.AC lets a supervisor use user pages; code at level 3 has no accesses of its own here. */
  #smapOpen(access: number): boolean {
    if (!this.registers.smap || access & USER) return true;
    return (this.ops.getRegister(this.vcpu, "rflags") & AC) !== 0n &&
      this.ops.getCpl(this.vcpu) < 3;
  }

  /** The shadow has all that the access needs. */
  #present(low: number, high: number, access: number): boolean {
    const { pool, registers: r } = this, words = pool.frames.machine.words;
    if (!r.smap || access & (USER | FETCH)) return false;
    let slot = pool.root;
    for (let level = r.paging === PAGING.fourLevel ? 4 : 3;; level--) {
      const at = level === 3 && slot === 0 ? low >>> 30 : indexOf(SHADOW, level, low, high);
      const node = slot * 512 + at;
      if (pool.target[node] < 0) return false;
      const entry = words[pool.place(node) >>> 2];
      if (slot !== 0 && access & WRITE && !(entry & RW)) return false;
      if (level === 1) return true;
      slot = pool.target[node];
    }
  }

  /** The guest goes on writing this one table: it is dropped, and may be written freely. */
  #tooManyWrites(guestFrame: number): boolean {
    if (guestFrame !== this.#written) {
      this.#written = guestFrame;
      this.#writes = 0;
    }
    if (++this.#writes < WRITES_TO_DROP) return false;
    this.#writes = 0;
    if (this.pool.root !== 0 && this.pool.guest[this.pool.root] === guestFrame) return false;
    this.pool.counts.dropped++;
    this.dropTable(guestFrame);
    return true;
  }

  /** Forgets a guest frame's shadows as a table; the root of a 4-level guest is only emptied. */
  dropTable(guestFrame: number): void {
    this.pool.eachTable(guestFrame, (slot) => {
      if (slot === this.pool.root) this.pool.empty(slot);
      else this.pool.release(slot);
    });
  }

  /** Derives the entries for what the walk found. */
  #fill(low: number, high: number): void {
    const { pool, walk, registers: r } = this;
    pool.begin();
    let slot = pool.root, level: number;
    if (r.paging === PAGING.fourLevel) level = 4;
    else {
      const n = low >>> 30;
      slot = this.#pointed(n, true);
      pool.set(0, n, slot, pool.address(slot) | P, 0);
      level = 2;
    }
    let step = 0;
    for (; level > 1; level--) {
      const at = indexOf(SHADOW, level, low, high);
      const child = this.#child(level, step, low);
      const flags = this.#tableFlags(level, step);
      const xd = this.#executeDisable(level, step);
      pool.set(slot, at, child, pool.address(child) | flags, xd);
      if (level > walk.level || walk.level === 4) step++;
      slot = child;
    }
    const frame = this.p2m.machineFrame(walk.frame);
    let flags = P | RW | US | A | D, xd = 0;
    if (walk.level === 1) {
      const entry = walk.low[step];
      flags = P | entry & US | A | D | (entry & D ? entry & RW : 0);
      xd = this.#executeDisable(1, step);
    }
    if (pool.isTable(walk.frame) || !this.p2m.writable(walk.frame)) flags &= ~RW;
    pool.set(
      slot,
      indexOf(SHADOW, 1, low, high),
      walk.frame,
      frame * 4096 | flags,
      xd | frame >>> 20,
    );
  }

  /** The table below an entry of a level: the guest's next one, or one that stands for a large page. */
  #child(level: number, step: number, low: number): number {
    const { pool, walk, registers: r } = this;
    if (level > walk.level) {
      const part = r.paging === PAGING.twoLevel ? low >>> 21 & 1 : 0;
      return pool.get(KINDS[r.paging][level - 1], walk.table[step + 1], part);
    }
    // 512 pages, or 512 times 512.
    if (level === 2) return pool.get(KIND.pages, walk.frame & ~0x1ff, 0);
    return pool.get(KIND.directory, walk.frame & ~0x3_ffff, 0);
  }

  #tableFlags(level: number, step: number): number {
    const { walk } = this;
    if (level > walk.level) return P | walk.low[step] & (RW | US) | A;
    // Below the entry of a large page all is allowed; in it, writes only once it is dirty.
    if (level < walk.level) return P | RW | US | A;
    const entry = walk.low[step];
    return P | entry & US | A | (entry & D ? entry & RW : 0);
  }

  #executeDisable(level: number, step: number): number {
    const { walk, registers: r } = this;
    return level >= walk.level && r.nxe && r.paging >= PAGING.pae ? walk.high[step] & XD : 0;
  }

  // --- exits ---

  /**
   * What an exit is to the rest of the hypervisor: a #PF is the guest's own with its error code, an
   * access to what is no memory, or a write that the emulator completes. Undefined: nothing at all.
   */
  refine(exit: Exit): Exit | undefined {
    if (
      exit.kind !== "exception" || exit.event.vector !== VECTOR.PF ||
      exit.event.type !== "exception"
    ) {
      return exit;
    }
    const { length, vectoring, qualification: linear } = exit;
    const { frame } = this.walk, gpa = frame * 4096 + (linear.low & 4095);
    switch (this.#outcome) {
      case OUTCOME.filled:
        return undefined;
      case OUTCOME.guest:
        return { ...exit, event: { ...exit.event, errorCode: this.walk.errorCode } };
      case OUTCOME.write:
        return { kind: "shadow-write", gpa, linear, length, vectoring };
    }
    const code = exit.event.errorCode ?? 0, write = (code & WRITE) !== 0;
    const fetch = (code & FETCH) !== 0;
    return {
      kind: "nested-page-fault",
      gpa,
      linear,
      read: !write && !fetch,
      write,
      fetch,
      walk: false,
      rights: this.p2m.machineFrame(frame) < 0 ? 0 : 5,
      misconfigured: false,
      length,
      vectoring,
    };
  }

  // --- writes to the guest's tables ---

  /** Bytes of a guest frame that is shadowed as a table have changed. */
  written(guestFrame: number, offset: number, length: number): void {
    this.pool.eachTable(guestFrame, (slot) => this.#entriesWritten(slot, offset, length));
  }

  #entriesWritten(slot: number, offset: number, length: number): void {
    const { pool } = this, kind = pool.kind[slot], part = pool.part[slot];
    const narrow = kind === KIND.pt32 || kind === KIND.pd32, shift = narrow ? 2 : 3;
    const last = (offset + length - 1) >>> shift;
    for (let entry = offset >>> shift; entry <= last; entry++) {
      if (!narrow) pool.clear(slot, entry);
      else if (kind === KIND.pt32) {
        if (entry >>> 9 === part) pool.clear(slot, entry & 511);
      } else if (entry >>> 8 === part) {
        pool.clear(slot, 2 * (entry & 255));
        pool.clear(slot, 2 * (entry & 255) + 1);
      }
    }
  }

  /** The tables the processor walks: their root, and whether they have four levels. */
  get walked(): { root: number; fourLevel: boolean } {
    return { root: this.pool.address(this.pool.root), fourLevel: this.pool.root !== 0 };
  }

  /** All shadows go; what was derived will be derived again. */
  drop(): void {
    this.pool.clearAll();
    this.#installed = false;
    this.#written = -1;
    this.#writes = 0;
    this.ops.setShadowRoot(this.vcpu, this.pool.address(0));
  }
}
