/**
 * CPUID as a table: leaves and sub-leaves with their four registers, made from a model and edited by
 * feature or by leaf. What depends on the processor's state is put in when it is read (SDM 2 CPUID;
 * APM 3 appendix E).
 */
import { CR4, EFER } from "../abi/x86/cr.ts";
import { type CpuidRegister, type FeatureBit, featureBits } from "../abi/x86/cpuid.ts";
import { XSAVE } from "../abi/x86/float.ts";
import { type CpuidModel, type CpuidModelRow, cpuidModels, MODELS, NEEDS } from "./cpuid_models.ts";
import { CR4_NEEDS, EFER_NEEDS } from "./system/control_rules.ts";
import { hiddenMsrs } from "./system/msrs.ts";
import { CPU, V } from "./state.ts";
import {
  AMD_LEAVES,
  cache,
  checkProcessors,
  LEVEL_LEAVES,
  topologyFeatures,
  topologyRows,
} from "./topology.ts";

export type { CpuidModel } from "./cpuid_models.ts";
import { PAGES_ABSENT } from "./mmu/modes.ts";

/** The four registers, unsigned 32-bit numbers. */
export type CpuidResult = Record<CpuidRegister, number>;

/** Parts of a result that follow the state of the processor. */
export interface CpuidState {
  /** CR4.OSXSAVE is set. */
  readonly osxsave?: boolean;
  /** The local APIC is enabled in IA32_APIC_BASE; so if not given. */
  readonly apicEnabled?: boolean;
  /** Of the processor that asks, at power-on; 0 if not given. */
  readonly apicId?: number;
}

/** Changes of a table: features by name, and registers of leaves, whole, by "leaf" or "leaf.subleaf". */
export interface CpuidEdit {
  /** Features by name: shown or not. */
  readonly features?: Readonly<Record<string, boolean>>;
  /** Registers of leaves, by "7" or "7.0"; those left out stay. */
  readonly leaves?: Readonly<Record<string, Partial<Record<CpuidRegister, number>>>>;
}

/** One row of the table. */
export interface CpuidRow extends CpuidResult {
  /** EAX that asks for it, unsigned. */
  readonly leaf: number;
  /** ECX that asks for it; 0 where it does not count. */
  readonly subleaf: number;
}

/** What a processor can honour. */
export interface CpuidLimits {
  /** Undefined if the feature can be switched on; else why not. */
  readonly refuse: (feature: string) => string | undefined;
  /** MAXPHYADDR, 36 to 52. */
  readonly physicalBits: number;
}

const UNLIMITED: CpuidLimits = { refuse: () => undefined, physicalBits: 36 };
const REGISTERS = ["eax", "ebx", "ecx", "edx"] as const;
/** Leaves whose sub-leaf counts. */
const WITH_SUBLEAVES = new Set([
  4,
  7,
  0xb,
  0xd,
  0xf,
  0x10,
  0x12,
  0x14,
  0x1f,
  0x4000_0003,
  0x4000_0004,
  0x8000_001d,
]);
/** The last leaf that a table can have, by the first one of its range. */
const RANGES: readonly (readonly [number, number])[] = [
  [0, 0x1f],
  [0x4000_0000, 0x4000_00ff],
  [0x8000_0000, 0x8000_001f],
];
/** Bits by which a processor tells its APIC id, by leaf and register. */
const APIC_IDS: Readonly<Record<string, number>> = {
  "1 ebx": 0xff00_0000,
  "b edx": 0xffff_ffff,
  "1f edx": 0xffff_ffff,
  "8000001e eax": 0xffff_ffff,
  "8000001e ebx": 0xff,
};
/** Leaves all of whose registers are features, or nothing. */
const FEATURES_ONLY = new Set([7, 0x8000_0007, 0x8000_0008]);
/** Features that CPUID works out when it is asked. */
const DYNAMIC: Readonly<Record<string, string>> = {
  osxsave: "it follows CR4.OSXSAVE",
  ospke: "it follows CR4.PKE",
};
const EXTENDED = 0x8000_0000;
const EXTENDED_SIGNATURE = 0x8000_0001;
const SVM_FEATURES = 0x8000_000a;
/** Bits of leaf 1 EDX that AMD's processors repeat in 80000001h. */
const REPEATED = 0x0183_f3ff;

const ZERO: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
const keyOf = (leaf: number, subleaf: number) =>
  leaf * 256 + (WITH_SUBLEAVES.has(leaf) ? Math.min(subleaf, 255) : 0);

/** "1", "7.0", "0x80000001", "d.1": a leaf, hexadecimal with 0x or with a letter in it. */
export function parseLeaf(text: string): { leaf: number; subleaf: number } {
  const number = (part: string) => {
    const hexadecimal = /^0x/i.test(part) ? part : /[a-f]/i.test(part) ? `0x${part}` : part;
    return /^(0x[0-9a-f]{1,8}|\d{1,10})$/i.test(hexadecimal) ? Number(hexadecimal) : NaN;
  };
  const parts = text.trim().split(/[.:]/);
  const [leaf, subleaf = 0] = parts.map(number);
  if (parts.length > 2 || !(leaf < 2 ** 32) || !(subleaf < 2 ** 32)) {
    throw new TypeError(
      `cpuid: a leaf was expected, as "1", "7.0" or "0x80000001", not ${
        JSON.stringify(text.slice(0, 60))
      }`,
    );
  }
  return { leaf, subleaf };
}

/** "7.0": how a leaf is written. */
export function leafText(leaf: number, subleaf = 0): string {
  const base = `0x${leaf.toString(16)}`;
  return WITH_SUBLEAVES.has(leaf) || subleaf ? `${base}.${subleaf.toString(16)}` : base;
}

/** Bytes of a text as little-endian 32-bit numbers. */
function words(text: string, count: number): number[] {
  const bytes = new Uint8Array(4 * count);
  new TextEncoder().encodeInto(text, bytes);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, i) => view.getUint32(4 * i, true));
}

const VENDORS = (["intel", "amd"] as const).map((vendor) => ({
  vendor,
  words: words(MODELS[vendor].vendor, 3),
}));

/** Deterministic cache parameters: 32 KB L1 data and code, 256 KB L2 (SDM 2 CPUID leaf 4). */
const CACHES = [cache(1, 1, 8, 64), cache(2, 1, 8, 64), cache(3, 2, 8, 512)];

/** Everything in a model's table but the feature bits. */
function modelRows(
  model: CpuidModelRow,
  limits: CpuidLimits,
  processors: number,
): Map<number, CpuidResult> {
  const rows = new Map<number, CpuidResult>();
  const row = (leaf: number, subleaf: number, values: Partial<CpuidResult>) =>
    rows.set(keyOf(leaf, subleaf), { ...ZERO, ...values });
  const [ebx, edx, ecx] = words(model.vendor, 3);
  row(0, 0, { eax: model.maxLeaf, ebx, ecx, edx });
  // CLFLUSH line of 8 quadwords.
  row(1, 0, { eax: model.signature, ebx: processors << 16 | 8 << 8 });
  if (model.like === "intel") CACHES.forEach((cache, n) => row(4, n, cache));
  row(EXTENDED, 0, {
    eax: model.maxExtended,
    ...(model.like === "intel" ? {} : { ebx, ecx, edx }),
  });
  row(EXTENDED_SIGNATURE, 0, model.like === "amd" ? { eax: model.signature } : {});
  const brand = words(model.brand, 12);
  for (let n = 0; n < 3; n++) {
    const [eax, ebx, ecx, edx] = brand.slice(4 * n);
    row(0x8000_0002 + n, 0, { eax, ebx, ecx, edx });
  }
  row(0x8000_0006, 0, { ecx: 0x0100_6040 });
  row(0x8000_0008, 0, { eax: 48 << 8 | limits.physicalBits });
  // Revision 1, 256 address-space identifiers.
  if (model.like === "amd") row(SVM_FEATURES, 0, { eax: 1, ebx: 256 });
  for (const [text, values] of Object.entries(model.leaves ?? {})) {
    const { leaf, subleaf } = parseLeaf(text);
    row(leaf, subleaf, values);
  }
  for (const [leaf, subleaf, bits] of topologyRows(model.like, processors, model.maxLeaf)) {
    const values = { ...rows.get(keyOf(leaf, subleaf)) ?? ZERO };
    for (const r of REGISTERS) values[r] = (values[r] | (bits[r] ?? 0)) >>> 0;
    row(leaf, subleaf, values);
  }
  return rows;
}

/** Values for a processor that are its CPUID's. */
export class Cpuid {
  readonly #rows: Map<number, CpuidResult>;
  readonly #like: CpuidModelRow["like"];
  /** "misalignsse" is shown: asked at every switch. */
  #misaligned = false;
  readonly #limits: CpuidLimits;
  /** Called after each edit. */
  readonly onChange: Set<() => void> = new Set();

  /**
   * @param model the processor's model; features of it that the limits refuse are left out
   * @param features features to switch on or off, by name
   * @param limits what the processor can honour
   * @param processors how many there are, 1 to 16: cores of a package, APIC ids from 0 on
   * @throws RangeError for another number of processors
   * @throws TypeError for a name that is no model or feature, and for a feature that is refused
   *
   * @example
   * ```ts
   * import { assert, assertEquals } from "@std/assert";
   * import { Cpuid } from "./cpuid.ts";
   * const cpuid = new Cpuid("intel", { sse2: false });
   * assertEquals(cpuid.read(1, 0).edx >>> 26 & 1, 0);
   * assert(cpuid.has("vmx") && !cpuid.has("sse3"));
   * cpuid.edit({ leaves: { "0x40000000": { eax: 0x4000_0001 } } });
   * assertEquals(cpuid.read(0x4000_0000, 0).eax, 0x4000_0001);
   * ```
   */
  constructor(
    readonly model: CpuidModel,
    features: Readonly<Record<string, boolean>> = {},
    limits: CpuidLimits = UNLIMITED,
    processors = 1,
  ) {
    if (!Object.hasOwn(MODELS, model)) {
      throw new TypeError(`cpuid: no model "${model}"; there are: ${cpuidModels.join(" ")}`);
    }
    const row: CpuidModelRow = MODELS[model];
    this.#like = row.like;
    this.#limits = limits;
    checkProcessors(processors);
    this.#rows = modelRows(row, limits, processors);
    const several = topologyFeatures(row.like, processors, row.maxLeaf);
    for (const name of [...row.features.split(" "), ...several]) {
      if (!limits.refuse(name)) this.#setBit(featureBits[name], true);
    }
    // One that lost what it needs goes too.
    for (const [name, needed] of Object.entries(NEEDS)) {
      if (this.has(name) && !this.has(needed)) this.#setFeature(name, false);
    }
    this.edit({ features });
  }

  has(feature: string): boolean {
    const f = featureBits[feature];
    const row = f && this.#rows.get(keyOf(f.leaf, f.subleaf));
    return row !== undefined && this.#exists(f.leaf) && (row[f.register] >>> f.bit & 1) !== 0;
  }

  /** "family10h": family and extended family of leaf 1 together. */
  get family(): string {
    const { eax } = this.#rows.get(keyOf(1, 0))!, base = eax >>> 8 & 15;
    const family = base === 15 ? base + (eax >>> 20 & 255) : base;
    return `family${family.toString(16).padStart(2, "0")}h`;
  }
  /** It shows a feature, or is of a family. */
  offers(what: string): boolean {
    return what.startsWith("family") ? what === this.family : this.has(what);
  }

  /** The features, sorted by name. */
  get features(): readonly string[] {
    return Object.keys(featureBits).filter((name) => this.has(name)).sort();
  }

  /** Whose ways software expects, by the text of leaf 0; undefined if it is neither vendor's. */
  get vendor(): "intel" | "amd" | undefined {
    const { ebx, ecx, edx } = this.#rows.get(keyOf(0, 0))!;
    // Every access to an MSR asks this.
    const found = VENDORS.find(({ words: [b, d, c] }) => b === ebx && d === edx && c === ecx);
    return found?.vendor;
  }

  /** Bits of CR4 that can be set. */
  get cr4Valid(): number {
    return this.#bits(CR4_NEEDS) | CR4.PCE;
  }
  /** Bits of EFER that exist. */
  get eferValid(): number {
    return this.#bits(EFER_NEEDS);
  }
  /** Bits of CR4 and EFER that are set though the feature they need is not shown: "CR4.SMEP". */
  withoutFeature(cr4: number, efer: number): { readonly bit: string; readonly feature: string }[] {
    const found = (
      register: string,
      value: number,
      names: Readonly<Record<string, number>>,
      needs: Record<string, number>,
    ) =>
      Object.entries(needs).filter(([feature]) => !this.has(feature)).flatMap(([feature, bits]) =>
        Object.entries(names).filter(([, mask]) => value & bits & mask)
          .map(([name]) => ({ bit: `${register}.${name}`, feature }))
      );
    return [...found("CR4", cr4, CR4, CR4_NEEDS), ...found("EFER", efer, EFER, EFER_NEEDS)];
  }
  /** Bits of PAGES_ABSENT. */
  get pagesAbsent(): number {
    return (this.has("pdpe1gb") ? 0 : PAGES_ABSENT.gigabyte) |
      (this.has("pse36") ? 0 : PAGES_ABSENT.pse36);
  }
  /** MXCSR.MM is there where the feature is shown, and while this is the CPUID of who runs. */
  showMisaligned(cells: Int32Array): void {
    cells[V.noMisaligned >> 2] = this.#misaligned ? 0 : 1;
  }
  #bits(table: Record<string, number>): number {
    return Object.entries(table).reduce((bits, [n, b]) => this.has(n) ? bits | b : bits, 0);
  }

  /** The last leaf of the basic or of the extended range. */
  #last(leaf: number): number {
    const [first] = RANGES.find(([from, to]) => leaf >= from && leaf <= to) ?? [0];
    const head = this.#rows.get(keyOf(first, 0));
    return first === 0x4000_0000 ? (head ? 0x4000_00ff : 0) : head?.eax ?? 0;
  }
  #exists(leaf: number): boolean {
    return RANGES.some(([from, to]) => leaf >= from && leaf <= to) && leaf <= this.#last(leaf);
  }

  /** The registers for leaf EAX and sub-leaf ECX. */
  read(leaf: number, subleaf: number, state?: CpuidState): CpuidResult {
    leaf >>>= 0;
    subleaf >>>= 0;
    if (!this.#exists(leaf)) {
      // Intel's processors answer with the highest basic leaf, the others with zeros.
      if (this.#like !== "intel") return { ...ZERO };
      leaf = this.#last(0);
    }
    // Without SVM none of its features are there to be told.
    if (leaf === SVM_FEATURES && !this.has("svm")) return { ...ZERO };
    const result = { ...(this.#rows.get(keyOf(leaf, subleaf)) ?? ZERO) };
    const leaf1 = this.#rows.get(keyOf(1, 0))!;
    const apicId = state?.apicId ?? 0;
    if (leaf === LEVEL_LEAVES.topology || leaf === LEVEL_LEAVES.extended) {
      // EDX is the x2APIC id whatever the sub-leaf.
      result.ecx = result.ecx & ~0xff | subleaf & 0xff;
      result.edx = apicId;
    }
    // A core and a thread of each id, in the only node.
    if (leaf === AMD_LEAVES.ids && this.has("topoext")) {
      Object.assign(result, { eax: apicId, ebx: apicId & 0xff });
    }
    if (leaf === 0xd && this.has("xsave")) this.#xsave(subleaf, result);
    if (leaf === 1) {
      result.ebx |= apicId << 24;
      if (state?.osxsave && this.has("xsave")) result.ecx |= 1 << 27;
    }
    if (leaf === EXTENDED_SIGNATURE && this.#like === "amd") result.edx |= leaf1.edx & REPEATED;
    const repeated = leaf === EXTENDED_SIGNATURE && this.#like === "amd";
    if ((leaf === 1 || repeated) && state?.apicEnabled === false) result.edx &= ~(1 << 9);
    for (const r of REGISTERS) result[r] >>>= 0;
    return result;
  }

  /** Leaf 0Dh follows from the features: x87 and SSE, nothing supervisor. */
  #xsave(subleaf: number, result: CpuidResult): void {
    if (subleaf === 0) Object.assign(result, { eax: 3, ebx: XSAVE.size, ecx: XSAVE.size });
    if (subleaf === 1 && this.has("xsavec")) result.ebx = XSAVE.size;
  }

  /** The table, sorted: every leaf and sub-leaf that is not all zeros, and the first of each range. */
  rows(state?: CpuidState): CpuidRow[] {
    const keys = new Set(this.#rows.keys());
    if (this.has("xsave")) { for (const n of [0, 1]) keys.add(keyOf(0xd, n)); }
    return [...keys].sort((a, b) => a - b)
      .map((key) => ({ leaf: Math.floor(key / 256), subleaf: key % 256 }))
      .filter(({ leaf }) => this.#exists(leaf))
      .map(({ leaf, subleaf }) => ({ leaf, subleaf, ...this.read(leaf, subleaf, state) }))
      .filter((row) => row.leaf % 0x4000_0000 === 0 || REGISTERS.some((r) => row[r] !== 0));
  }

  /**
   * Changes the table; nothing changes if any part of the edit is refused.
   *
   * Switching a feature off takes along those that need it; leaves are written after features.
   *
   * @param check throws for what it refuses of the table as it is after the edit
   * @throws TypeError naming the feature or the leaf that does not exist, or cannot be so
   */
  edit(edit: CpuidEdit, check?: () => void): void {
    const before = this.save();
    try {
      for (const [name, on] of Object.entries(edit.features ?? {})) this.#setFeature(name, on);
      for (const [text, values] of Object.entries(edit.leaves ?? {})) this.#setLeaf(text, values);
      this.#checkNeeds();
      check?.();
    } catch (error) {
      this.load(before);
      throw error;
    }
    this.#changed();
  }

  /** What is to be saved: the rows as they stand. */
  save(): number[][] {
    return [...this.#rows].sort((a, b) => a[0] - b[0])
      .map(([key, r]) => [key, ...REGISTERS.map((name) => r[name] >>> 0)]);
  }
  /** Why rows cannot be loaded here; undefined if they can. */
  problem(saved: readonly (readonly number[])[]): string | undefined {
    const rows = new Map(saved.map(([key, ...values]) => [key, values]));
    if (!rows.has(keyOf(0, 0)) || !rows.has(keyOf(1, 0))) return "leaf 0 or 1 is missing";
    if (saved.some(([key], n) => n > 0 && key <= saved[n - 1][0])) return "leaves are out of order";
    for (const [name, { leaf, subleaf, register, bit }] of Object.entries(featureBits)) {
      const value = rows.get(keyOf(leaf, subleaf))?.[REGISTERS.indexOf(register)] ?? 0;
      const refused = value >>> bit & 1 ? this.#limits.refuse(name) : undefined;
      if (refused) return `it shows ${name}: ${refused}`;
    }
  }
  load(saved: readonly (readonly number[])[]): void {
    this.#rows.clear();
    for (const [key, eax, ebx, ecx, edx] of saved) this.#rows.set(key, { eax, ebx, ecx, edx });
    this.#changed();
  }

  /** Tells who goes by it. */
  #changed(): void {
    this.#misaligned = this.has("misalignsse");
    for (const listener of [...this.onChange]) listener();
  }

  #setBit(f: FeatureBit, on: boolean): void {
    const key = keyOf(f.leaf, f.subleaf);
    const row = this.#rows.get(key) ?? { ...ZERO };
    row[f.register] = (on ? row[f.register] | 1 << f.bit : row[f.register] & ~(1 << f.bit)) >>> 0;
    this.#rows.set(key, row);
    // A leaf that says something is one that exists.
    const head = this.#rows.get(keyOf(f.leaf >= EXTENDED ? EXTENDED : 0, 0))!;
    if (on && head.eax < f.leaf) head.eax = f.leaf;
  }

  #setFeature(name: string, on: boolean): void {
    const f = Object.hasOwn(featureBits, name) ? featureBits[name] : undefined;
    if (!f) throw new TypeError(`cpuid: "${name.slice(0, 60)}" is no feature's name${near(name)}`);
    if (typeof on !== "boolean") {
      throw new TypeError(`cpuid: ${name} can be true or false, not ${String(on)}`);
    }
    if (DYNAMIC[name]) throw new TypeError(`cpuid: ${name} cannot be set: ${DYNAMIC[name]}`);
    const refused = on ? this.#limits.refuse(name) : undefined;
    if (refused) throw new TypeError(`cpuid: ${name} cannot be switched on: ${refused}`);
    this.#setBit(f, on);
    if (on) return;
    for (const [other, needed] of Object.entries(NEEDS)) {
      if (needed === name && this.has(other)) this.#setFeature(other, false);
    }
  }

  #checkNeeds(): void {
    for (const [name, needed] of Object.entries(NEEDS)) {
      if (this.has(name) && !this.has(needed)) {
        throw new TypeError(`cpuid: ${name} needs ${needed}, which is off`);
      }
    }
  }

  #setLeaf(text: string, values: Partial<Record<string, unknown>>): void {
    const { leaf, subleaf } = parseLeaf(text), at = leafText(leaf, subleaf);
    if (!RANGES.some(([from, to]) => leaf >= from && leaf <= to)) {
      const ranges = RANGES.map(([from, to]) => `0x${from.toString(16)} to 0x${to.toString(16)}`);
      throw new TypeError(`cpuid: there is no leaf ${at}; leaves are ${ranges.join(", ")}`);
    }
    if (subleaf && !WITH_SUBLEAVES.has(leaf)) {
      throw new TypeError(`cpuid: leaf 0x${leaf.toString(16)} has no sub-leaves`);
    }
    const row = { ...(this.#rows.get(keyOf(leaf, subleaf)) ?? ZERO) };
    for (const [name, given] of Object.entries(values)) {
      if (!(REGISTERS as readonly string[]).includes(name)) {
        throw new TypeError(`cpuid: leaf ${at} has ${REGISTERS.join(", ")}, not "${name}"`);
      }
      const register = name as CpuidRegister;
      const value = Number(given);
      if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
        throw new TypeError(`cpuid: ${at} ${name}: 0 to 0xffffffff was expected, not ${given}`);
      }
      this.#checkRegister(leaf, subleaf, register, row[register] >>> 0, value);
      row[register] = value;
    }
    this.#rows.set(keyOf(leaf, subleaf), row);
  }

  /** Refuses what a register cannot say on this processor. */
  #checkRegister(
    leaf: number,
    subleaf: number,
    register: CpuidRegister,
    old: number,
    value: number,
  ): void {
    const at = `${leafText(leaf, subleaf)} ${register}`;
    const refuse = (why: string) => {
      throw new TypeError(`cpuid: ${at} cannot be 0x${value.toString(16)}: ${why}`);
    };
    const fixed = leaf === 0xd && !(subleaf === 1 && register === "eax") ||
      leaf === 0x8000_0008 && register === "eax" || leaf === 7 && register === "eax";
    if (fixed && value !== old) refuse("the machine gives it");
    const own = ((old ^ value) & (APIC_IDS[`${leaf.toString(16)} ${register}`] ?? 0)) >>> 0;
    if (own) {
      refuse(`bits 0x${own.toString(16)} are of the APIC id, which each processor has its own of`);
    }
    if (leaf % EXTENDED === 0 && register === "eax" && (value < leaf || value > leaf + 0x1f)) {
      refuse(`the last leaf is 0x${leaf.toString(16)} to 0x${(leaf + 0x1f).toString(16)}`);
    }
    const names = new Map(
      Object.entries(featureBits)
        .filter(([, f]) => f.leaf === leaf && f.subleaf === subleaf && f.register === register)
        .map(([name, f]) => [f.bit, name]),
    );
    if (names.size === 0 && !FEATURES_ONLY.has(leaf)) return;
    for (let bit = 0; bit < 32; bit++) {
      const name = names.get(bit);
      if (((old ^ value) >>> bit & 1) === 0) continue;
      if (name && DYNAMIC[name]) refuse(`${name}: ${DYNAMIC[name]}`);
      if ((value >>> bit & 1) === 0) continue;
      if (!name) return refuse(`bit ${bit} is no feature of this machine`);
      const refused = this.#limits.refuse(name);
      if (refused) refuse(`${name} cannot be switched on: ${refused}`);
    }
  }

  /**
   * Writes what depends on the table into the volatile cells of a processor, and gives the host
   * function `cpuid`, which reads EAX and ECX there and writes the four registers.
   *
   * @param apicId of the processor
   */
  install(cells: Int32Array, apicId = 0): () => void {
    const { physicalBits } = this.#limits;
    const high = (0x000f_ffff_ffff_f000n >> BigInt(physicalBits)) << BigInt(physicalBits);
    const set64 = (at: number, value: bigint) => {
      cells[at >> 2] = Number(BigInt.asIntN(32, value));
      cells[(at >> 2) + 1] = Number(BigInt.asIntN(32, value >> 32n));
    };
    // Results by what they depend on: software asks for the same few leaves again and again.
    const known = new Map<string, CpuidResult>();
    const changed = () => {
      known.clear();
      set64(V.reservedHigh, high);
      set64(V.cr4Valid, BigInt(this.cr4Valid >>> 0));
      set64(V.eferValid, BigInt(this.eferValid >>> 0));
      cells[V.hiddenMsrs >> 2] = hiddenMsrs((what) => this.offers(what));
      cells[V.pagesAbsent >> 2] = this.pagesAbsent;
      this.showMisaligned(cells);
    };
    changed();
    this.onChange.add(changed);
    return () => {
      const leaf = cells[CPU.rax >> 2], subleaf = cells[CPU.rcx >> 2];
      const osxsave = (cells[CPU.cr4 >> 2] & CR4.OSXSAVE) !== 0;
      const apicEnabled = (cells[CPU.apicBase >> 2] & 0x800) !== 0;
      const key = `${leaf},${subleaf},${osxsave},${apicEnabled}`;
      let r = known.get(key);
      if (!r) {
        // Software can ask for any number of leaves that do not exist.
        if (known.size > 256) known.clear();
        known.set(key, r = this.read(leaf, subleaf, { osxsave, apicEnabled, apicId }));
      }
      const set = (at: number, value: number) => {
        cells[at >> 2] = value;
        cells[(at >> 2) + 1] = 0;
      };
      set(CPU.rax, r.eax);
      set(CPU.rbx, r.ebx);
      set(CPU.rcx, r.ecx);
      set(CPU.rdx, r.edx);
    };
  }
}

/** "; did you mean …?", for a feature's name that is nearly one. */
function near(name: string): string {
  const plain = name.toLowerCase().replaceAll(/[.-]/g, "_").replaceAll("_", "");
  const found = Object.keys(featureBits).find((other) => other.replaceAll("_", "") === plain);
  return found ? `; did you mean ${found}?` : "; the names are those of Linux's /proc/cpuinfo";
}
