/**
 * A domain's shadow page tables as objects: the pool they lie in, the tables, their entries.
 *
 * @module
 */
import type { Shadow, ShadowCounts } from "../../xen/shadow.ts";
import {
  isGuestTable,
  KIND,
  kindNames,
  type PoolCounts,
  type ShadowKind,
} from "../../xen/shadow_pool.ts";
import type { Subject } from "../subject.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";
import { guestFlags } from "./page_tables.ts";
import {
  bold,
  counted,
  grouped,
  hex,
  INSPECT,
  type InspectOptions,
  sizeText,
  tableText,
} from "../values.ts";

/** An entry of a shadow table. */
export interface ShadowEntry {
  /** Number of the entry in its table, 0 to 511. */
  readonly index: number;
  /** Machine address of the entry: `hv.memory` writes it. */
  readonly address: bigint;
  /** The entry itself, 64 bits. */
  readonly entry: bigint;
  /** Its flags in words: "present", "writable", "user", … */
  readonly flags: readonly string[];
  /** Guest frame it leads to, of a last level. */
  readonly guestFrame?: number;
  /** Machine address of the shadow table it leads to, of another. */
  readonly table?: bigint;
}

const LEVELS: Partial<Record<ShadowKind, number>> = {
  [KIND.pml4]: 4,
  [KIND.pdpt64]: 3,
  [KIND.pointers]: 3,
  [KIND.pd32]: 2,
  [KIND.pdPae]: 2,
  [KIND.pd64]: 2,
  [KIND.directory]: 2,
};

/** One shadow table: what it shadows, where it lies, and its entries. */
export class ShadowTable {
  /** "page table", "page directory, PAE", "large page, 2 MB", … */
  readonly kind: string;
  /** Guest frame of the table it shadows, or of the first page of what it maps. */
  readonly guestFrame: number;
  /** Which part of the guest's table: a page of 4-byte entries takes more than one of 8-byte ones. */
  readonly part: number;
  /** Machine address of the table. */
  readonly address: bigint;
  /** Entries present. */
  readonly present: number;
  /** The processor's CR3 leads here. */
  readonly root: boolean;
  readonly #shadow: Shadow;
  readonly #slot: number;
  readonly #subject: Subject;
  readonly #kind: ShadowKind;

  /** @ignore Found in {@linkcode ShadowView.tables}. */
  constructor(shadow: Shadow, slot: number, subject: Subject) {
    const { pool } = shadow;
    this.#subject = subject;
    this.#kind = pool.kind[slot] as ShadowKind;
    this.#shadow = shadow;
    this.#slot = slot;
    this.kind = kindNames[pool.kind[slot] as ShadowKind];
    this.guestFrame = pool.guest[slot];
    this.part = pool.part[slot];
    this.address = BigInt(pool.address(slot));
    this.present = pool.present[slot];
    this.root = pool.root === slot;
  }

  /** Its entries that are present, as they stand in machine memory. */
  get entries(): readonly ShadowEntry[] {
    this.#subject.mustLive("entries");
    const { pool } = this.#shadow, kind = this.#kind, slot = this.#slot;
    const same = pool.kind[slot] === kind && pool.guest[slot] === this.guestFrame &&
      pool.part[slot] === this.part;
    if (!same) throw new Error(`${this.#title()} is no more; shadow.tables lists those there are`);
    const { words } = pool.frames.machine;
    const level = LEVELS[kind] ?? 1;
    const entries: ShadowEntry[] = [];
    for (let index = 0; index < 512; index++) {
      const node = this.#slot * 512 + index, target = pool.target[node];
      if (target < 0) continue;
      const at = pool.place(node);
      const entry = BigInt(words[(at >>> 2) + 1] >>> 0) << 32n | BigInt(words[at >>> 2] >>> 0);
      const flags = guestFlags(entry, level, kind === KIND.pointers ? "PAE" : "4-level");
      const leads = level === 1 ? { guestFrame: target } : { table: BigInt(pool.address(target)) };
      entries.push({ index, address: BigInt(at), entry, flags, ...leads });
    }
    return entries;
  }

  /** The table with its entries, one a line. */
  toString(options?: InspectOptions): string {
    const { gone } = this.#subject;
    if (gone !== undefined) return `shadow table: ${gone}`;
    const rows = this.entries.map((e) => [
      String(e.index),
      hex(e.address, 8),
      hex(e.entry, 16),
      e.guestFrame !== undefined ? `guest frame ${hex(e.guestFrame)}` : `table ${hex(e.table!, 8)}`,
      e.flags.join(" "),
    ]);
    return `${bold(this.#title(), options)}\n` +
      tableText(["index", "entry at", "entry", "leads to", "flags"], rows);
  }
  #title(): string {
    const guest = isGuestTable(this.#kind)
      ? ` of guest frame ${hex(this.guestFrame)}`
      : ` from guest frame ${hex(this.guestFrame)}`;
    return `shadow ${this.kind}${guest}${this.part ? `, part ${this.part}` : ""} at machine ` +
      `${hex(this.address, 8)}: ${counted(this.present, "entry", "entries")}${
        this.root ? ", the root" : ""
      }`;
  }
  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    return this.toString(options);
  }
}

/** Shadow paging of a domain. */
export class ShadowView {
  readonly #paging: Shadow;
  readonly #subject: Subject;

  /** @ignore Found as `domain.shadow`. */
  constructor(shadow: Shadow, subject: Subject) {
    this.#paging = shadow;
    this.#subject = subject;
  }
  get #shadow(): Shadow {
    this.#subject.mustLive("shadow");
    return this.#paging;
  }

  /** Frames of 4 KiB: all, in use, and free. */
  get pool(): { readonly frames: number; readonly used: number; readonly free: number } {
    const { slots, free } = this.#shadow.pool;
    return { frames: slots, used: slots - free, free };
  }
  /** What it has done so far. */
  get counts(): ShadowCounts & PoolCounts {
    return { ...this.#shadow.counts, ...this.#shadow.pool.counts };
  }
  /** The tables there are, the root first. */
  get tables(): readonly ShadowTable[] {
    const { pool } = this.#shadow, slots: number[] = [];
    for (let slot = 0; slot < pool.slots; slot++) {
      if (pool.kind[slot] !== KIND.free && slot !== pool.root) slots.push(slot);
    }
    slots.sort((a, b) => pool.kind[b] - pool.kind[a] || pool.guest[a] - pool.guest[b]);
    return [pool.root, ...slots].map((slot) => new ShadowTable(this.#shadow, slot, this.#subject));
  }
  /**
   * The table at a machine address, or the first that shadows a guest frame.
   *
   * @throws {RangeError} if there is none
   */
  table(place: { readonly address: bigint } | { readonly guestFrame: number }): ShadowTable {
    const found = this.tables.find((t) =>
      "address" in place ? t.address === place.address : t.guestFrame === place.guestFrame
    );
    if (found) return found;
    const given = "address" in place
      ? `at machine address ${hex(place.address)}`
      : `of guest frame ${hex(place.guestFrame)}`;
    throw new RangeError(`there is no shadow table ${given}; shadow.tables lists them`);
  }

  /** Pool, counts, and the tables, one a line. */
  toString(options?: InspectOptions): string {
    const { gone } = this.#subject;
    if (gone !== undefined) return `shadow paging: ${gone}`;
    const { pool, counts, tables } = this;
    const lines = [
      bold(
        `shadow paging: ${grouped(pool.used)} of ${counted(pool.frames, "frame")} used (${
          sizeText(pool.frames * 4096)
        })`,
        options,
      ),
      Object.entries(counts).map(([name, n]) => `${name} ${grouped(n)}`).join(", "),
      tableText(
        ["table", "guest frame", "part", "machine", "entries", ""],
        tables.map((t) => [
          t.kind,
          hex(t.guestFrame),
          String(t.part),
          hex(t.address, 8),
          String(t.present),
          t.root ? "root" : "",
        ]),
      ),
    ];
    return lines.join("\n");
  }
  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    return this.toString(options);
  }
}

/** The shadow page tables of a vCPU, if it has some. */
export function shadowOf({ domain, engine }: VcpuSubject): ShadowView | undefined {
  domain.mustLive("shadow");
  return engine?.shadow && new ShadowView(engine.shadow, domain);
}

/** What shadow paging has done for all vCPUs of a domain together; undefined without it. */
export function shadowCounts(
  vcpus: readonly VcpuSubject[],
): ShadowCounts & PoolCounts | undefined {
  let sum: Record<string, number> | undefined;
  for (const { engine } of vcpus) {
    if (!engine?.shadow) continue;
    const { counts, pool } = engine.shadow;
    sum ??= {};
    for (const [name, n] of Object.entries({ ...counts, ...pool.counts })) {
      sum[name] = (sum[name] ?? 0) + n;
    }
  }
  return sum as ShadowCounts & PoolCounts | undefined;
}
