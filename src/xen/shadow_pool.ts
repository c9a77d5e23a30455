/**
 * The frames that hold a vCPU's shadow tables: a fixed number of slots, found by what they shadow,
 * with a reverse map from frames to the entries that lead to them, and eviction when all are used.
 *
 * An entry that is present is a node (slot × 512 + index) in the list of its target: of the guest
 * frame it maps if it is a leaf, of the shadow table it leads to if not. All of it is derived state.
 */
import type { Frames } from "./frames.ts";
import type { P2M } from "./p2m.ts";

/** What a slot holds. Tables of the guest in its three formats, and what stands for its large pages. */
export const KIND = {
  free: 0,
  /** A 2-level guest's page table, 512 of its 1024 entries: two to a guest frame. */
  pt32: 1,
  /** A 2-level guest's page directory, a quarter of it with each entry as two: four to a frame. */
  pd32: 2,
  ptPae: 3,
  pdPae: 4,
  pt64: 5,
  pd64: 6,
  pdpt64: 7,
  pml4: 8,
  /** 512 pages from a guest frame on: 2 MB of a large page, or of an unpaged guest's memory. */
  pages: 9,
  /** 512 such tables: 1 GB. */
  directory: 10,
  /** The four pointers of PAE paging. Slot 0, never evicted. */
  pointers: 11,
} as const;
export type ShadowKind = typeof KIND[keyof typeof KIND];

export const kindNames: Readonly<Record<ShadowKind, string>> = {
  0: "free",
  1: "page table, 32-bit",
  2: "page directory, 32-bit",
  3: "page table, PAE",
  4: "page directory, PAE",
  5: "page table",
  6: "page directory",
  7: "page-directory-pointer table",
  8: "PML4 table",
  9: "large page, 2 MB",
  10: "large page, 1 GB",
  11: "page-directory pointers",
};

/** Entries of these kinds lead to pages. */
const LEAF: readonly boolean[] = [1, 3, 5, 9].reduce((a, k) => {
  a[k] = true;
  return a;
}, Array(12).fill(false));

/** Kinds that shadow a table of the guest: its frame is kept from writes. */
export const isGuestTable = (kind: number): boolean => kind >= KIND.pt32 && kind <= KIND.pml4;

const BUCKETS = 4096, RW = 2, NONE = -1;

/** How much the pool has been used. */
export interface PoolCounts {
  /** Shadow tables dropped because another needed their frame. */
  evictions: number;
  /** Guest tables dropped because the guest went on writing them. */
  dropped: number;
  /** Shadow tables made. */
  made: number;
}

export class ShadowPool {
  /** Machine frame of each slot. */
  readonly frame: Int32Array;
  readonly kind: Uint8Array;
  /** Guest frame that the slot shadows, or the first it maps. */
  readonly guest: Int32Array;
  /** Which part of the guest table. */
  readonly part: Uint8Array;
  /** Entries present in the slot. */
  readonly present: Int32Array;
  readonly counts: PoolCounts = { evictions: 0, dropped: 0, made: 0 };
  /** Guest frame (leaf) or slot that each entry leads to, -1 if it is not present. */
  readonly target: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  /** First entry that maps a guest frame; first entry that leads to a slot. */
  #leaves: Int32Array;
  readonly #parents: Int32Array;
  readonly #buckets = new Int32Array(BUCKETS).fill(NONE);
  readonly #chain: Int32Array;
  /** Shadows of each guest frame as a table. */
  #tables: Uint8Array;
  readonly #words: Int32Array;
  readonly #freeSlots: Int32Array;
  #free = 0;
  /** The fault in which a slot was used last: those of the running one are not evicted. */
  readonly #used: Int32Array;
  readonly #recent: Uint8Array;
  #serial = 1;
  #hand = 1;
  /** The slot that the processor's CR3 points to. */
  root = 0;

  constructor(readonly p2m: P2M, readonly frames: Frames, owner: number, readonly slots: number) {
    this.frame = new Int32Array(slots);
    for (let n = 0; n < slots; n++) this.frame[n] = frames.allocate(owner);
    this.kind = new Uint8Array(slots);
    this.guest = new Int32Array(slots);
    this.part = new Uint8Array(slots);
    this.present = new Int32Array(slots);
    this.target = new Int32Array(slots * 512).fill(NONE);
    this.#next = new Int32Array(slots * 512);
    this.#previous = new Int32Array(slots * 512);
    this.#leaves = new Int32Array(p2m.room).fill(NONE);
    this.#parents = new Int32Array(slots).fill(NONE);
    this.#chain = new Int32Array(slots);
    this.#tables = new Uint8Array(p2m.room);
    this.#words = frames.machine.words;
    this.#freeSlots = new Int32Array(slots);
    this.#used = new Int32Array(slots);
    this.#recent = new Uint8Array(slots);
    this.#reset();
  }

  #reset(): void {
    this.#free = 0;
    for (let n = this.slots - 1; n > 0; n--) this.#freeSlots[this.#free++] = n;
    this.kind[0] = KIND.pointers;
    this.root = 0;
    this.#hand = 1;
  }

  get free(): number {
    return this.#free;
  }
  /** Machine address of a slot's table. */
  address(slot: number): number {
    return this.frame[slot] * 4096;
  }
  /** The slot whose table lies in a machine frame, -1 if none does. */
  slotOf(machineFrame: number): number {
    return this.frame.indexOf(machineFrame);
  }

  /** A new fault: what it uses from here on stays until the next one. */
  begin(): void {
    this.#serial++;
  }

  /** The P2M has grown. */
  grow(): void {
    const { room } = this.p2m;
    if (this.#leaves.length >= room) return;
    const leaves = new Int32Array(room).fill(NONE), tables = new Uint8Array(room);
    leaves.set(this.#leaves);
    tables.set(this.#tables);
    this.#leaves = leaves;
    this.#tables = tables;
  }

  /** The guest frame is shadowed as a table. */
  isTable(guestFrame: number): boolean {
    return this.#tables[guestFrame] > 0;
  }

  /** The slot that shadows (part of) a guest frame as `kind`, -1 if there is none. */
  find(kind: ShadowKind, guest: number, part: number): number {
    for (let n = this.#buckets[guest & BUCKETS - 1]; n !== NONE; n = this.#chain[n]) {
      if (this.guest[n] === guest && this.kind[n] === kind && this.part[n] === part) return n;
    }
    return NONE;
  }

  /** That slot, made if need be. */
  get(kind: ShadowKind, guest: number, part: number): number {
    let slot = this.find(kind, guest, part);
    if (slot === NONE) slot = this.#make(kind, guest, part);
    this.#used[slot] = this.#serial;
    this.#recent[slot] = 1;
    return slot;
  }

  #make(kind: ShadowKind, guest: number, part: number): number {
    if (this.#free === 0) this.#evict();
    const slot = this.#freeSlots[--this.#free];
    this.kind[slot] = kind;
    this.guest[slot] = guest;
    this.part[slot] = part;
    const bucket = guest & BUCKETS - 1;
    this.#chain[slot] = this.#buckets[bucket];
    this.#buckets[bucket] = slot;
    this.counts.made++;
    if (isGuestTable(kind) && guest < this.#tables.length && this.#tables[guest]++ === 0) {
      this.#protect(guest);
    }
    return slot;
  }

  /** The guest has no entry left through which it could write the frame; other writes are told of. */
  #protect(guest: number): void {
    const words = this.#words;
    for (let node = this.#leaves[guest]; node !== NONE; node = this.#next[node]) {
      const at = this.place(node);
      if (words[at >>> 2] & RW) {
        this.frames.machine.writeEntry(at, words[at >>> 2] & ~RW, words[(at >>> 2) + 1]);
      }
    }
    this.p2m.markDerived(guest, true);
  }

  /** Second chance: the first slot behind the hand that was not used since it came by. */
  #evict(): void {
    for (let tries = 0; tries < 2 * this.slots; tries++) {
      const slot = this.#hand;
      this.#hand = slot + 1 < this.slots ? slot + 1 : 1;
      if (this.#used[slot] === this.#serial || slot === this.root) continue;
      if (this.#recent[slot]) {
        this.#recent[slot] = 0;
        continue;
      }
      this.counts.evictions++;
      this.release(slot);
      return;
    }
    throw new Error(`all ${this.slots} shadow frames are in use by one translation`);
  }

  /** Machine address of an entry. */
  place(node: number): number {
    return this.frame[node >>> 9] * 4096 + (node & 511) * 8;
  }

  /** Makes an entry lead to `target`; what stands there already is only changed where it differs. */
  set(slot: number, index: number, target: number, low: number, high: number): void {
    const node = slot * 512 + index, old = this.target[node];
    const address = this.frame[slot] * 4096 + index * 8;
    if (old !== target) {
      if (old !== NONE) this.#unlink(node);
      this.#link(node, target);
    } else if (this.#words[address >>> 2] === low && this.#words[(address >>> 2) + 1] === high) {
      return;
    }
    this.frames.machine.writeEntry(address, low, high);
  }

  /** Makes an entry not present. */
  clear(slot: number, index: number): void {
    const node = slot * 512 + index;
    if (this.target[node] === NONE) return;
    this.#unlink(node);
    this.frames.machine.writeEntry(this.place(node), 0, 0);
  }

  #heads(node: number): Int32Array {
    return LEAF[this.kind[node >>> 9]] ? this.#leaves : this.#parents;
  }
  #link(node: number, target: number): void {
    const heads = this.#heads(node), first = heads[target];
    this.target[node] = target;
    this.#next[node] = first;
    this.#previous[node] = NONE;
    if (first !== NONE) this.#previous[first] = node;
    heads[target] = node;
    this.present[node >>> 9]++;
  }
  #unlink(node: number): void {
    const next = this.#next[node], previous = this.#previous[node];
    if (next !== NONE) this.#previous[next] = previous;
    if (previous !== NONE) this.#next[previous] = next;
    else this.#heads(node)[this.target[node]] = next;
    this.target[node] = NONE;
    this.present[node >>> 9]--;
  }

  /** Gives a slot back: nothing leads to it any more, and it leads nowhere. */
  release(slot: number): void {
    while (this.#parents[slot] !== NONE) {
      const node = this.#parents[slot];
      this.clear(node >>> 9, node & 511);
    }
    this.empty(slot);
    this.#forget(slot);
    this.kind[slot] = KIND.free;
    this.#freeSlots[this.#free++] = slot;
  }

  /** Makes all entries of a slot not present. */
  empty(slot: number): void {
    if (this.present[slot] === 0) return;
    const from = slot * 512;
    for (let node = from; node < from + 512 && this.present[slot] > 0; node++) {
      if (this.target[node] === NONE) continue;
      this.#unlink(node);
      this.frames.machine.writeEntry(this.place(node), 0, 0);
    }
  }

  /** Takes a slot out of the index, and frees the guest table for writes if it was the last. */
  #forget(slot: number): void {
    const guest = this.guest[slot], bucket = guest & BUCKETS - 1;
    if (this.#buckets[bucket] === slot) this.#buckets[bucket] = this.#chain[slot];
    else {
      let n = this.#buckets[bucket];
      while (this.#chain[n] !== slot) n = this.#chain[n];
      this.#chain[n] = this.#chain[slot];
    }
    if (isGuestTable(this.kind[slot]) && guest < this.#tables.length) {
      if (--this.#tables[guest] === 0) this.p2m.markDerived(guest, false);
    }
  }

  /** Calls `each` with every slot that shadows a guest frame as a table. */
  eachTable(guest: number, each: (slot: number) => void): void {
    for (let n = this.#buckets[guest & BUCKETS - 1]; n !== NONE;) {
      const next = this.#chain[n];
      if (this.guest[n] === guest && isGuestTable(this.kind[n])) each(n);
      n = next;
    }
  }

  /** Entries that map a guest frame go. */
  clearLeaves(guest: number): void {
    while (this.#leaves[guest] !== undefined && this.#leaves[guest] !== NONE) {
      const node = this.#leaves[guest];
      this.clear(node >>> 9, node & 511);
    }
  }

  /** Nothing is shadowed any more. */
  clearAll(): void {
    this.empty(0);
    for (let slot = 1; slot < this.slots; slot++) {
      if (this.kind[slot] !== KIND.free) this.release(slot);
    }
    this.#recent.fill(0);
    this.#reset();
  }
}
