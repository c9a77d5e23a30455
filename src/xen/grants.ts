/**
 * Grant tables (Xen public/grant_table.h): what a domain lets others use of its memory, and what it uses of
 * theirs. Statuses are GNTST_*: 0 or negative; nothing throws for what a guest asks.
 */
import { offsetOf, sizeOf } from "../abi/layout.ts";
import {
  GNTMAP,
  GNTST,
  GNTTAB,
  GRANT_ENTRY_V1,
  GRANT_ENTRY_V2,
  GRANT_STATUS_SIZE,
  GTF,
} from "../abi/xen/grant_table.ts";
import type { StateRegister } from "../machine/state_block.ts";
import type { PlatformKind, PlatformWatch } from "./platform_watch.ts";
import { refuse } from "./refusal.ts";
import type { Frames } from "./frames.ts";
import { GRANTS_SHAPE, type SavedGrants } from "./grants_state.ts";
import type { SharedMemory } from "./shared_memory.ts";

const { bad_domain, bad_gntref, bad_handle, bad_page, general_error, no_space, okay } = GNTST;

/** Frames that a domain's table can have (gnttab_max_frames), and grants of others it can have mapped. */
const MAX_FRAMES = 64, MAX_MAPS = 1024 * 256;
/** Of one grant, at a time. */
const MAX_PINS = 255;

const SIZE = { 1: sizeOf(GRANT_ENTRY_V1, 64), 2: sizeOf(GRANT_ENTRY_V2, 64) } as const;
const V2_FRAME = offsetOf(GRANT_ENTRY_V2, "full_page.frame", 64);
const V2_TRANSITIVE_DOMAIN = offsetOf(GRANT_ENTRY_V2, "transitive.trans_domid", 64);
const V2_TRANSITIVE_REF = offsetOf(GRANT_ENTRY_V2, "transitive.gref", 64);
const V2_PAGE_OFF = offsetOf(GRANT_ENTRY_V2, "sub_page.page_off", 64);
const V2_LENGTH = offsetOf(GRANT_ENTRY_V2, "sub_page.length", 64);

/** The memory of a domain, as others come to it. */
export interface GrantedMemory {
  /** Machine frame of the guest's memory, -1 if there is none; `write`: that the guest may write. */
  frameOf(guestFrame: number, write: boolean): number;
}

/** A grant in use: by mappings, and by copies while they last. */
export interface ActiveGrant {
  readonly domain: number;
  readonly frame: number;
  /** The part that may be copied; the page, of most. */
  readonly from: number;
  readonly length: number;
  /** Uses of it for reading and for writing. */
  readers: number;
  writers: number;
}

/** A grant of another domain's that is in this one's memory. */
export interface GrantMapping {
  /** The granter and its reference. */
  readonly domain: number;
  readonly ref: number;
  readonly frame: number;
  readonly readonly: boolean;
  /** Where: a guest frame; -1 where the hypervisor's own process has it. */
  readonly at: number;
}

/** What a use of a grant came to. */
export type Use = ActiveGrant | { readonly status: number };
export const isRefused = (use: Use): use is { readonly status: number } => "status" in use;

export class GrantTable {
  version: 1 | 2 = 1;
  /** Machine frames of the table, and of the status words of version 2. */
  readonly shared: number[] = [];
  readonly status: number[] = [];
  readonly active: Map<number, ActiveGrant> = new Map();
  readonly #maps: (GrantMapping | undefined)[] = [];
  /** No handle below it is free. */
  #lowest = 0;

  constructor(
    readonly id: number,
    private readonly memory: SharedMemory,
    private readonly frames: Frames,
    private readonly guest: GrantedMemory | undefined,
    /** Of another domain, or this one. */
    readonly tableOf: (domain: number) => GrantTable | undefined,
    /** A frame is the hypervisor's, and shown to the guest. */
    private readonly share: (frame: number) => void,
  ) {}

  readonly maxFrames: number = MAX_FRAMES;
  /** Asked before a grant of its, or one of others' by it, is mapped, unmapped or copied. */
  watch: PlatformWatch | undefined;
  /** How often others have copied from and to its grants, by reference. */
  readonly copies: Map<number, number> = new Map();

  /** What somebody who looks on refuses a use of a domain's grant with; undefined: nothing. */
  refusal(
    kind: PlatformKind,
    domain: number,
    ref: number,
    more: Readonly<Record<string, unknown>>,
  ): number | undefined {
    const table = this.tableOf(domain);
    if (!this.watch && !table?.watch) return undefined;
    const known = table !== undefined && ref < table.size;
    const fields = {
      domain,
      ref,
      by: this.id,
      ...known && { frame: table.entry(ref).frame },
      ...more,
    };
    const refused = this.watch?.(kind, 0, fields);
    return refused === undefined && table !== this ? table?.watch?.(kind, 0, fields) : refused;
  }
  /** References that there are. */
  get size(): number {
    return this.shared.length * 4096 / SIZE[this.version];
  }
  /** Makes it so many frames large, if it is smaller; false: it may not be. */
  grow(frames: number): boolean {
    // With status words, of version 2, as many again at most.
    const { free } = this.frames;
    if (frames > MAX_FRAMES || (frames > this.shared.length && free < 2 * frames)) return false;
    while (this.shared.length < frames) this.shared.push(this.#frame());
    this.#growStatus();
    return true;
  }
  #growStatus(): void {
    if (this.version === 1) return;
    const needed = Math.ceil(this.size * GRANT_STATUS_SIZE / 4096);
    while (this.status.length < needed) this.status.push(this.#frame());
  }
  #frame(): number {
    const frame = this.frames.allocate(this.id);
    this.share(frame);
    return frame;
  }

  // --- entries ---

  /** Machine address of an entry. */
  #at(ref: number): number {
    const size = SIZE[this.version], each = 4096 / size;
    return this.shared[Math.floor(ref / each)] * 4096 + ref % each * size;
  }
  /** Machine address of what says that it is read and written: flags, or a status word. */
  #statusAt(ref: number): number {
    if (this.version === 1) return this.#at(ref);
    const each = 4096 / GRANT_STATUS_SIZE;
    return this.status[Math.floor(ref / each)] * 4096 + ref % each * GRANT_STATUS_SIZE;
  }
  /** What the guest says in an entry. */
  entry(ref: number): GrantEntry {
    const at = this.#at(ref), { memory, version } = this, head = memory.word(at);
    const flags = head & 0xffff, domain = head >>> 16;
    const frame = version === 1 ? memory.word(at + 4) : memory.long(at + V2_FRAME);
    const transitive = version === 2 && (flags & GTF.type_mask) === GTF.transitive;
    return {
      flags,
      domain,
      frame,
      from: version === 2 && flags & GTF.sub_page ? memory.half(at + V2_PAGE_OFF) : 0,
      length: version === 2 && flags & GTF.sub_page ? memory.half(at + V2_LENGTH) : 4096,
      onward: transitive
        ? {
          domain: memory.half(at + V2_TRANSITIVE_DOMAIN),
          ref: memory.word(at + V2_TRANSITIVE_REF),
        }
        : undefined,
    };
  }
  /** Writes an entry as its domain would: of the hypervisor's own pages, before the guest runs. */
  seed(ref: number, domain: number, frame: number): void {
    const at = this.#at(ref);
    this.memory.setWord(at, domain << 16 | GTF.permit_access);
    this.memory.setWord(at + 4, frame);
  }
  #mark(ref: number, bit: number, on: boolean): void {
    const at = this.#statusAt(ref), old = this.memory.half(at);
    const now = on ? old | bit : old & ~bit;
    if (now !== old) this.memory.setHalf(at, now);
  }

  // --- use by others ---

  /**
   * Domain `by` begins to use a grant: its frame, or why not. Each use is one reader and, where it
   * writes, one writer more, until {@linkcode end}.
   */
  begin(ref: number, by: number, write: boolean, copy: boolean): Use {
    if (ref >= this.size) return { status: refuse(bad_gntref, "no reference", ref, this.size) };
    const active = this.active.get(ref);
    if (active) {
      const whole = active.length === 4096;
      const refused = active.domain !== by || active.readers >= MAX_PINS || (!copy && !whole);
      if (refused) return { status: refuse(general_error, "grant in use", ref, active.domain) };
      if (write && active.writers === 0) {
        if (this.entry(ref).flags & GTF.readonly) {
          return { status: refuse(general_error, "grant read-only", ref) };
        }
        this.#mark(ref, GTF.writing, true);
      }
      active.readers++;
      if (write) active.writers++;
      return active;
    }
    const { flags, domain, frame: guestFrame, from, length } = this.entry(ref);
    const permitted = (flags & GTF.type_mask) === GTF.permit_access && domain === by;
    const partly = (flags & GTF.sub_page) !== 0 && !copy;
    if (domain !== by && (flags & GTF.type_mask) !== 0) {
      return { status: refuse(general_error, "grant for another", ref, domain) };
    }
    if (!permitted) return { status: refuse(general_error, "no grant", ref) };
    if (partly) return { status: refuse(general_error, "part of a page", ref) };
    if (write && flags & GTF.readonly) {
      return { status: refuse(general_error, "grant read-only", ref) };
    }
    const frame = this.guest?.frameOf(guestFrame, write) ?? -1;
    if (frame < 0) return { status: refuse(bad_page, "no page", ref, guestFrame) };
    const begun = { domain: by, frame, from, length, readers: 1, writers: write ? 1 : 0 };
    this.active.set(ref, begun);
    this.frames.hold(frame);
    this.#mark(ref, GTF.reading, true);
    if (write) this.#mark(ref, GTF.writing, true);
    return begun;
  }
  /** One use is over. */
  end(ref: number, write: boolean): void {
    const active = this.active.get(ref);
    if (!active) return;
    active.readers--;
    if (write && --active.writers === 0) this.#mark(ref, GTF.writing, false);
    if (active.readers > 0) return;
    this.active.delete(ref);
    this.#mark(ref, GTF.reading, false);
    this.frames.letGo(active.frame);
  }

  // --- use of others' ---

  /** Mappings by handle. */
  get maps(): readonly (readonly [handle: number, GrantMapping])[] {
    return this.#maps.flatMap((map, handle) => map ? [[handle, map] as const] : []);
  }
  mapping(handle: number): GrantMapping | undefined {
    return this.#maps[handle];
  }
  /** Maps a grant of a domain's, `at` a guest frame or nowhere (-1): the handle; negative: a status. */
  map(domain: number, ref: number, flags: number, at: number): number {
    const table = this.tableOf(domain), readonly = (flags & GNTMAP.readonly) !== 0;
    if (!table) return refuse(bad_domain, "no domain", domain);
    const refused = this.refusal("grant-map", domain, ref, { readonly, at });
    // There is no handle to give for one that is passed over.
    if (refused !== undefined) return refused || general_error;
    let handle = this.#lowest;
    while (this.#maps[handle]) handle++;
    this.#lowest = handle;
    if (handle >= MAX_MAPS) return refuse(no_space, "maps used up", MAX_MAPS);
    const use = table.begin(ref, this.id, !readonly, false);
    if (isRefused(use)) return use.status;
    this.#maps[handle] = { domain, ref, frame: use.frame, readonly, at };
    // The frame stays while it is mapped, whatever becomes of the granter.
    this.frames.hold(use.frame);
    return handle;
  }
  /** What somebody refuses the end of a mapping with; undefined: nothing. */
  refusesUnmap(handle: number): number | undefined {
    const map = this.#maps[handle];
    if (!map) return undefined;
    const { domain, ref, readonly, at } = map;
    return this.refusal("grant-unmap", domain, ref, { readonly, at });
  }
  /** Ends a mapping: a status. */
  unmap(handle: number): number {
    const map = this.#maps[handle];
    if (!map) return bad_handle;
    this.#maps[handle] = undefined;
    this.#lowest = Math.min(this.#lowest, handle);
    this.tableOf(map.domain)?.end(map.ref, !map.readonly);
    this.frames.letGo(map.frame);
    return okay;
  }

  // --- the table itself ---

  /** Whether anybody uses a grant beyond the reserved ones. */
  get busy(): boolean {
    return [...this.active.keys()].some((ref) => ref >= GNTTAB.NR_RESERVED_ENTRIES);
  }
  /** Changes what entries look like; the reserved ones go along, all others are empty then. */
  setVersion(version: 1 | 2): void {
    if (version === this.version) return;
    const kept = Array.from({ length: GNTTAB.NR_RESERVED_ENTRIES }, (_, ref) => this.entry(ref));
    for (const frame of this.shared) this.memory.machine.write(frame * 4096, EMPTY);
    this.version = version;
    this.#growStatus();
    kept.forEach(({ flags, domain, frame }, ref) => {
      if ((flags & GTF.type_mask) !== GTF.permit_access) return;
      const at = this.#at(ref);
      this.memory.setWord(at, (domain << 16 | flags & ~(GTF.reading | GTF.writing)) >>> 0);
      if (version === 1) this.memory.setWord(at + 4, frame);
      else this.memory.setLong(at + V2_FRAME, BigInt(frame));
      const { readers = 0, writers = 0 } = this.active.get(ref) ?? {};
      this.#mark(ref, GTF.reading, readers > 0);
      this.#mark(ref, GTF.writing, writers > 0);
    });
  }
  /** Two entries change places: a status. */
  swap(a: number, b: number): number {
    if (a >= this.size || b >= this.size) return bad_gntref;
    if (a === b) return okay;
    if (this.active.has(a) || this.active.has(b)) return GNTST.eagain;
    const size = SIZE[this.version], { machine } = this.memory;
    const [one, two] = [this.#at(a), this.#at(b)];
    const kept = machine.ram.slice(one, one + size);
    machine.write(one, machine.ram.slice(two, two + size));
    machine.write(two, kept);
    return okay;
  }
  /** The domain is no more: what it has mapped is let go. What it granted stays for those who use it. */
  destroy(): void {
    for (const [handle] of this.maps) this.unmap(handle);
    for (const { frame } of this.active.values()) this.frames.letGo(frame);
    this.active.clear();
  }

  register(blocks: StateRegister): void {
    blocks.register<SavedGrants>({
      name: "grants",
      version: 1,
      shape: GRANTS_SHAPE,
      save: () => ({
        version: this.version,
        shared: [...this.shared],
        status: [...this.status],
        active: [...this.active].sort(([a], [b]) => a - b)
          .map(([ref, active]) => ({ ref, ...active })),
        maps: this.maps.map(([handle, map]) => ({ handle, ...map })),
        copies: [...this.copies].sort(([a], [b]) => a - b),
      }),
      load: ({ version, shared, status, active, maps, copies }) => {
        this.version = version === 2 ? 2 : 1;
        this.shared.splice(0, Infinity, ...shared);
        this.status.splice(0, Infinity, ...status);
        for (const frame of [...shared, ...status]) this.share(frame);
        this.active.clear();
        for (const { ref, ...rest } of active) this.active.set(ref, rest);
        this.copies.clear();
        for (const [ref, count] of copies) this.copies.set(ref, count);
        this.#maps.length = 0;
        for (const { handle, ...map } of maps) this.#maps[handle] = map;
        this.#lowest = 0;
      },
    });
  }
}

/** What a guest says in an entry of its table. */
export interface GrantEntry {
  /** GTF_*. */
  readonly flags: number;
  /** Who may use it. */
  readonly domain: number;
  /** The guest frame. */
  readonly frame: number;
  /** The bytes that may be copied. */
  readonly from: number;
  readonly length: number;
  /** Another domain's grant that is passed on. */
  readonly onward?: { readonly domain: number; readonly ref: number };
}

const EMPTY = new Uint8Array(4096);
