/**
 * Page tables in words: the walk of one address, and the map of a whole address space.
 *
 * @module
 */
import { EFER } from "../../abi/x86/cr.ts";
import type { RegisterFile } from "../register_file.ts";
import { codeBits } from "../register_file.ts";
import type { Address } from "../../hvm/fields.ts";
import { toAddress } from "../check.ts";
import {
  bold,
  counted,
  hex,
  INSPECT,
  type InspectOptions,
  sizeText,
  tableText,
} from "../values.ts";
import type { NestedFormat } from "../../hvm/ops.ts";
import { frameOf, MODES, pagingOf, shiftOf } from "../../machine/mmu/modes.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";
import { type RawStep, type RawWalk, withPaging, withShadow } from "../walker.ts";

/** How linear addresses are translated (SDM 3 4.1.1). */
export type PagingMode = "none" | "32-bit" | "PAE" | "4-level";

/** The paging mode that the control registers select. */
function pagingMode(file: RegisterFile): PagingMode {
  return MODES[pagingOf(word(file.get("cr0")!), word(file.get("cr4")!), word(file.get("efer")!))]
    .name;
}

const NAMES = ["", "PTE", "PDE", "PDPTE", "PML4E"];
const word = (value: bigint) => Number(BigInt.asIntN(32, value));
const formatOf = (mode: PagingMode) => MODES.find(({ name }) => name === mode)!;

/** One level of a walk. */
export interface WalkLevel {
  /** 4 (PML4 entry) to 1 (page-table entry). */
  readonly level: number;
  /** "PML4E", "PDPTE", "PDE" or "PTE"; nested ones begin with "nested", shadows with "shadow". */
  readonly name: string;
  /** Place of the entry: guest-physical, for nested and shadow tables machine. */
  readonly address: bigint;
  /** Number of the entry in its table. */
  readonly index: number;
  /** The entry itself: 32 or 64 bits. */
  readonly entry: bigint;
  /** Its flags in words: "present", "writable", "user", … */
  readonly flags: readonly string[];
}

/** What an address may be used for, all levels together. */
export interface Rights {
  /** Always, of a page that is there. */
  readonly read: boolean;
  /** Every level is writable; while CR0.WP is clear a supervisor may write all the same. */
  readonly write: boolean;
  /** No level has its execute-disable bit in force. */
  readonly execute: boolean;
  /** Code at privilege level 3 may use it. */
  readonly user: boolean;
}

const PRESENT = 1n, WRITE = 2n, USER = 4n, LARGE = 0x80n, XD = 1n << 63n;

/** A guest entry's flags in words. */
export function guestFlags(entry: bigint, level: number, mode: PagingMode): string[] {
  if (!(entry & PRESENT)) return entry ? ["not present", "other bits set"] : ["not present"];
  const flags = ["present"];
  const pointer = mode === "PAE" && level === 3;
  if (!pointer) {
    flags.push(entry & WRITE ? "writable" : "read-only", entry & USER ? "user" : "supervisor");
  }
  if (entry & 8n) flags.push("write-through");
  if (entry & 0x10n) flags.push("cache-disabled");
  if (entry & 0x20n && !pointer) flags.push("accessed");
  const large = level > 1 && entry & LARGE && !pointer;
  if (large) flags.push("large");
  if (level === 1 || large) {
    if (entry & 0x40n) flags.push("dirty");
    if (entry & 0x100n) flags.push("global");
    if (entry & (large ? 0x1000n : 0x80n)) flags.push("PAT");
  }
  if (mode !== "32-bit" && entry & XD) flags.push("execute-disable");
  return flags;
}

/** A walk of a linear address, level by level, as the processor does it. */
export class PageWalk {
  /** The guest's own levels, the highest first. Empty while paging is off. */
  readonly levels: readonly WalkLevel[];
  /** For each of `levels`, the nested levels that translate its address; then those of the result. */
  readonly nested: readonly (readonly WalkLevel[])[];
  /** Under shadow paging: the levels that the processor itself walks, in machine memory. */
  readonly shadow: readonly WalkLevel[] | undefined;
  /** Where those lead. */
  readonly shadowMachine?: bigint;
  /** Why they lead nowhere: what is missing is derived at the next access. */
  readonly shadowFailure?: string;
  /** Guest-physical address, undefined if the walk ended early. */
  readonly physical?: bigint;
  /** Machine address; where nothing is nested, the same as `physical`. */
  readonly machine?: bigint;
  /** Bytes of the page. */
  readonly pageSize?: number;
  /** What the page may be used for; undefined if the walk ended early. */
  readonly rights?: Rights;
  /** Why the walk ended early. */
  readonly failure?: string;

  /** The address that was walked. */
  readonly linear: bigint;
  /** How addresses were translated. */
  readonly mode: PagingMode;
  /** CR3 as the guest has it. */
  readonly cr3: bigint;

  /** @ignore Made by {@linkcode PageTables.walk}. */
  constructor(
    linear: bigint,
    mode: PagingMode,
    raw: RawWalk,
    result: RawWalk | undefined,
    file: RegisterFile,
    cr3: bigint,
    format?: NestedFormat,
    shadow?: RawWalk,
  ) {
    this.linear = linear;
    this.mode = mode;
    this.cr3 = cr3;
    this.shadow = shadow?.steps.map((s) => describeShadow(s, shadow.steps[0].level === 3));
    this.shadowFailure = shadow?.failure?.text;
    if (shadow?.machine !== undefined) this.shadowMachine = BigInt(shadow.machine);
    const levels: WalkLevel[] = [], nested: WalkLevel[][] = [];
    let pending: WalkLevel[] = [];
    for (const step of raw.steps) {
      const level = describe(step, linear, mode, format);
      if (step.nested) pending.push(level);
      else {
        levels.push(level);
        nested.push(pending);
        pending = [];
      }
    }
    nested.push(result ? result.steps.map((s) => describe(s, linear, mode, format)) : pending);
    this.levels = levels;
    this.nested = nested;
    this.failure = raw.failure?.text ?? result?.failure?.text;
    const last = raw.steps.findLast((s) => !s.nested);
    if (raw.failure?.kind === "fault" || (mode !== "none" && last === undefined)) return;
    this.physical = leafAddress(last, linear, mode);
    this.rights = rightsOf(raw.steps.filter((s) => !s.nested), mode, file);
    this.pageSize = last ? 2 ** shiftOf(formatOf(mode), last.level) : undefined;
    if (raw.machine !== undefined) this.machine = BigInt(raw.machine);
  }

  /** Guest and shadow entries of each level, from the top; empty without shadow paging. */
  get sideBySide(): readonly { level: number; guest?: WalkLevel; shadow?: WalkLevel }[] {
    if (!this.shadow) return [];
    return [4, 3, 2, 1].map((level) => ({
      level,
      guest: this.levels.find((l) => l.level === level),
      shadow: this.shadow!.find((l) => l.level === level),
    })).filter(({ guest, shadow }) => guest || shadow);
  }

  /** The levels as a table, and where they lead. */
  toString(options?: InspectOptions): string {
    const { linear, mode, physical, machine, failure } = this;
    const title = mode === "none"
      ? `${hex(linear)}: paging is off`
      : `${hex(linear)}: ${mode} paging, CR3 ${hex(this.cr3)}`;
    const nested = this.shadow !== undefined || this.nested.some((levels) => levels.length > 0);
    const rows: string[][] = [];
    if (this.shadow) {
      for (const { guest, shadow } of this.sideBySide) {
        if (guest) rows.push(row(guest, ""));
        if (shadow) rows.push(row(shadow, "  "));
      }
    } else {
      this.levels.forEach((level, i) => {
        for (const n of this.nested[i]) rows.push(row(n, "  "));
        rows.push(row(level, ""));
      });
      for (const n of this.nested.at(-1) ?? []) rows.push(row(n, "  "));
    }
    const lines = [bold(title, options)];
    if (rows.length) lines.push(tableText(["level", "index", "entry at", "entry", "flags"], rows));
    if (physical !== undefined) {
      const size = this.pageSize ? `, ${sizeText(this.pageSize)} page` : "";
      lines.push(
        `=> ${nested ? "guest-physical " : "physical "}${hex(physical)}${size}` +
          (machine !== undefined && nested ? `, machine ${hex(machine)}` : "") +
          (this.rights && mode !== "none" ? `, ${rightsText(this.rights)}` : ""),
      );
    }
    if (failure) lines.push(`=> ${failure}`);
    if (this.shadowMachine !== undefined) {
      lines.push(`=> the shadow leads to machine ${hex(this.shadowMachine)}`);
    } else if (this.shadow) lines.push(`=> the shadow has no translation: ${this.shadowFailure}`);
    return lines.join("\n");
  }
  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    return this.toString(options);
  }
}

const row = (l: WalkLevel, indent: string) => [
  indent + l.name,
  String(l.index),
  hex(l.address, 8),
  hex(l.entry, 8),
  l.flags.join(" "),
];

function describe(
  step: RawStep,
  linear: bigint,
  mode: PagingMode,
  format: NestedFormat | undefined,
): WalkLevel {
  const { level, nested, address, entry } = step;
  const index = !nested && mode === "PAE" && level === 3
    ? Number(linear >> 30n & 3n)
    : Number(address & 0xfffn) / (nested ? 8 : formatOf(mode).bytes);
  return {
    level,
    name: nested ? `nested ${NAMES[level]}` : NAMES[level],
    address,
    index,
    entry,
    flags: nested
      ? format?.flags?.(entry, level) ?? guestFlags(entry, level, "4-level")
      : guestFlags(entry, level, mode),
  };
}

/** Shadow tables are PAE or 4-level ones, in machine memory; PAE pointers come from registers. */
function describeShadow({ level, address, entry }: RawStep, pointers: boolean): WalkLevel {
  return {
    level,
    name: `shadow ${NAMES[level]}`,
    address,
    index: Number(address & 0xfffn) / 8,
    entry,
    flags: guestFlags(entry, level, pointers ? "PAE" : "4-level"),
  };
}

function leafAddress(last: RawStep | undefined, linear: bigint, mode: PagingMode): bigint {
  if (!last) return linear;
  const { level, entry } = last, high = word(entry >> 32n);
  const frame = frameOf(formatOf(mode), level, word(entry), high, word(linear));
  return BigInt(frame) << 12n | linear & 0xfffn;
}

/** Rights of all levels together (SDM 3 4.6). */
function rightsOf(steps: readonly RawStep[], mode: PagingMode, file: RegisterFile): Rights {
  const entries = steps.filter((s) => !(mode === "PAE" && s.level === 3)).map((s) => s.entry);
  const all = (bit: bigint) => entries.every((e) => e & bit);
  const xd = mode !== "32-bit" && (file.get("efer")! & BigInt(EFER.NXE)) !== 0n &&
    entries.some((e) => e & XD);
  return { read: true, write: all(WRITE), user: all(USER), execute: !xd };
}

/** `r w x user`. */
function rightsText({ read, write, execute, user }: Rights): string {
  return `${read ? "r" : "-"}${write ? "w" : "-"}${execute ? "x" : "-"} ${
    user ? "user" : "supervisor"
  }`;
}

/** A range of linear addresses that all may be used alike. */
export interface MapRange {
  /** First linear address. */
  readonly from: bigint;
  /** End, not included. */
  readonly to: bigint;
  /** Bytes of each page. */
  readonly pageSize: number;
  /** What the pages may be used for. */
  readonly rights: Rights;
  /** Where the first page leads. */
  readonly physical: bigint;
  /** All pages follow each other in physical memory too. */
  readonly contiguous: boolean;
}

/** The map of an address space. */
export class PageMap {
  /** How addresses were translated. */
  readonly mode: PagingMode;
  /** What is mapped, lowest first; empty while paging is off. */
  readonly ranges: readonly MapRange[];

  /** @ignore Made by {@linkcode PageTables.map}. */
  constructor(
    mode: PagingMode,
    ranges: readonly MapRange[],
  ) {
    this.mode = mode;
    this.ranges = ranges;
  }

  /** Bytes mapped. */
  get size(): bigint {
    return this.ranges.reduce((sum, { from, to }) => sum + to - from, 0n);
  }
  /** The ranges, lowest first. */
  *[Symbol.iterator](): Iterator<MapRange> {
    yield* this.ranges;
  }
  /** One range a line. */
  toString(options?: InspectOptions): string {
    if (this.mode === "none") return "paging is off: linear addresses are physical ones";
    const rows = this.ranges.map(({ from, to, pageSize, rights, physical, contiguous }) => {
      const digits = this.mode === "4-level" ? 16 : 8;
      return [
        `${hex(from, digits)}-${hex(to - 1n, digits)}`,
        sizeText(Number(to - from)),
        sizeText(pageSize),
        rightsText(rights),
        contiguous ? hex(physical, 8) : "scattered",
      ];
    });
    return `${bold(`${this.mode} paging, ${counted(this.ranges.length, "range")}`, options)}\n` +
      tableText(["linear addresses", "size", "pages", "rights", "physical"], rows);
  }
  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    return this.toString(options);
  }
}

/** The page tables of a vCPU. */
export class PageTables {
  readonly #vcpu: VcpuSubject;

  /** @ignore Found as `pageTables` of a vCPU. */
  constructor(vcpu: VcpuSubject) {
    this.#vcpu = vcpu;
  }

  /** How addresses are translated now. */
  get mode(): PagingMode {
    return pagingMode(this.#vcpu.paging.file);
  }

  /**
   * Walks the tables for a linear address: every level with its flags, of the guest's tables and of
   * nested or shadow ones. It is the processor's own walk, made as a look: no accessed bit is set.
   *
   * @param address a linear address, or a symbol's name
   * @returns the walk, also of an address that leads nowhere: `failure` says why
   * @throws {RangeError} for an address that the mode does not have
   */
  walk(address: Address): PageWalk {
    const context = this.#vcpu.paging, { file } = context;
    const linear = toAddress(address, "linear address", this.#vcpu.domain.symbols);
    if (codeBits(file) !== 64 && linear > 0xffff_ffffn && pagingMode(file) !== "4-level") {
      throw new RangeError(`linear address ${hex(linear)}: addresses have 32 bits in this mode`);
    }
    const mode = pagingMode(file);
    return withPaging(context, (walker) => {
      const raw = walker.walk(linear);
      // The record of a nested walk has room for the guest's levels only; the result's come apart.
      const last = raw.steps.findLast((s) => !s.nested);
      const reached = !raw.failure || raw.failure.kind === "exit";
      const result = context.nested !== undefined && reached && (mode === "none" || last)
        ? walker.nested(leafAddress(last, linear, mode))
        : undefined;
      const shadow = context.shadow && withShadow(context, context.shadow, (w) => {
        const found = w.walk(linear);
        // The pointers of PAE paging are registers, loaded from the root.
        const steps = found.steps.map((s) =>
          s.level === 3 && !context.shadow!.fourLevel
            ? { ...s, address: s.address + BigInt(context.shadow!.root) }
            : s
        );
        return { ...found, steps };
      });
      const cr3 = file.get("cr3")!;
      return new PageWalk(linear, mode, raw, result, file, cr3, context.nested?.format, shadow);
    });
  }

  /**
   * The whole address space: ranges with the same rights and page size. Empty parts are left out by
   * the level at which their walk ends.
   */
  map(): PageMap {
    const context = this.#vcpu.paging, { file } = context;
    const mode = pagingMode(file);
    if (mode === "none") return new PageMap(mode, []);
    const ranges: MapRange[] = [];
    withPaging(context, (walker) => {
      const parts: [bigint, bigint][] = mode === "4-level"
        ? [[0n, 1n << 47n], [0xffff_8000_0000_0000n, 1n << 64n]]
        : [[0n, 1n << 32n]];
      for (const [from, to] of parts) {
        for (let at = from; at < to;) {
          const raw = walker.walk(at);
          const steps = raw.steps.filter((s) => !s.nested);
          const last = steps.at(-1);
          // A table behind a nested fault: nothing can be said of what it would cover.
          const format = formatOf(mode);
          const size = 1n <<
            BigInt(shiftOf(format, last?.level ?? (format.pointers ? 3 : format.levels)));
          if (last && raw.failure?.kind !== "fault") {
            add(ranges, {
              from: at,
              to: at + size,
              pageSize: Number(size),
              rights: rightsOf(steps, mode, file),
              physical: leafAddress(last, at, mode),
              contiguous: true,
            });
          }
          at = (at / size + 1n) * size;
        }
      }
    });
    return new PageMap(mode, ranges);
  }

  /** @ignore */
  [INSPECT](): string {
    let mode: PagingMode;
    try {
      mode = this.mode;
    } catch (error) {
      return (error as Error).message; // whose they were is no more
    }
    return `page tables, ${mode === "none" ? "paging is off" : `${mode} paging`}: ` +
      `walk(address), map()`;
  }
}

function add(ranges: MapRange[], next: MapRange): void {
  const last = ranges.at(-1);
  const alike = last && last.to === next.from && last.pageSize === next.pageSize &&
    last.rights.write === next.rights.write && last.rights.user === next.rights.user &&
    last.rights.execute === next.rights.execute;
  if (!alike) ranges.push(next);
  else {
    const contiguous = last.contiguous && last.physical + (last.to - last.from) === next.physical;
    ranges[ranges.length - 1] = { ...last, to: next.to, contiguous };
  }
}
