/**
 * What one can break on: the kinds, what a filter for each may say, and what an event of it has.
 * One table; the verbs, the messages and the intercepts are made from it.
 *
 * @module
 */
import { exceptionVectors, vectorName } from "../abi/x86/vectors.ts";
import type { Exit } from "../hvm/exit.ts";
import type { Intercepts } from "../hvm/ops.ts";
import { MSRS } from "./register_file.ts";
import {
  type Address,
  hex,
  INSPECT,
  nearestName,
  shown,
  type SymbolLookup,
  toAddress,
  toCount,
} from "./values.ts";

/** A number, or the first and last of a range. */
export type NumberRange = number | readonly [first: number, last: number];
/** An address, or the first and last of a range. */
export type AddressRange = Address | readonly [first: Address, last: Address];

/** What filters may say, by kind. What is left out matches all. */
export interface Filters {
  /** Before the instruction at a linear address, or at a symbol, is executed. */
  execute: { address: Address };
  /**
   * After an instruction touched memory: `length` bytes (1 if not given) from a linear address, or
   * with `physical` from a guest-physical one. `write` is true unless said otherwise, `read` false.
   */
  watch: { address: Address; length?: number; read?: boolean; write?: boolean; physical?: boolean };
  /** After each instruction. */
  step: Record<never, never>;
  cpuid: { leaf?: number; subleaf?: number };
  /** `msr` is a number or a name: "efer", "lstar". */
  msr: { msr?: number | string; write?: boolean; value?: bigint };
  io: { port?: NumberRange; write?: boolean; size?: number; value?: number; string?: boolean };
  /** A guest-physical address without memory: a device. */
  mmio: { address?: AddressRange; write?: boolean };
  cr: { cr?: 0 | 3 | 4 | 8; write?: boolean; value?: bigint; access?: "mov" | "clts" | "lmsw" };
  dr: { dr?: number; write?: boolean };
  /** `vector` is a number or a name: 14, "#PF"; `address` is the linear address of a page fault. */
  exception: { vector?: number | string; errorCode?: number; address?: AddressRange };
  nmi: Record<never, never>;
  /** An interrupt of the host. */
  "external-interrupt": { vector?: number };
  "task-switch": { selector?: number; source?: "call" | "iret" | "jmp" | "gate" };
  invlpg: { linear?: AddressRange };
  "descriptor-table": { instruction?: string };
  rdtsc: { aux?: boolean };
  mwait: { armed?: boolean };
  monitor: Record<never, never>;
  pause: Record<never, never>;
  rdpmc: Record<never, never>;
  wbinvd: Record<never, never>;
  invd: Record<never, never>;
  xsetbv: Record<never, never>;
  invpcid: Record<never, never>;
  rdrand: Record<never, never>;
  rdseed: Record<never, never>;
  hlt: Record<never, never>;
  /** `number` is what is in EAX. */
  hypercall: { number?: number };
  "virtualization-instruction": { instruction?: string };
  "nested-page-fault": {
    gpa?: AddressRange;
    read?: boolean;
    write?: boolean;
    fetch?: boolean;
    walk?: boolean;
  };
  /** A write to a page table under shadow paging; and such by a supervisor without CR0.WP. */
  "shadow-write": { gpa?: AddressRange; linear?: AddressRange };
  "interrupt-window": Record<never, never>;
  "nmi-window": Record<never, never>;
  /** INT n. */
  "software-interrupt": { vector?: number };
  iret: Record<never, never>;
  pushf: Record<never, never>;
  popf: Record<never, never>;
  icebp: Record<never, never>;
  rsm: Record<never, never>;
  smi: Record<never, never>;
  init: Record<never, never>;
  "preemption-timer": Record<never, never>;
  "triple-fault": Record<never, never>;
  tpr: Record<never, never>;
  debug: Record<never, never>;
  "entry-failure": { what?: string };
  /** Any exit; with `all`, everything that can exit does. */
  any: { all?: boolean };
}

/** Something to break on. */
export type Kind = keyof Filters;

/** What an event of a kind has besides what all have. */
export interface Fields {
  execute: { readonly address: bigint };
  watch: {
    /** Linear address of the access. */
    readonly address: bigint;
    readonly physical: bigint | undefined;
    readonly length: number;
    readonly write: boolean;
    /** The processor did it while it delivered an event. */
    readonly delivery: boolean;
    readonly old: bigint;
    readonly value: bigint;
  };
  cpuid: {
    readonly leaf: number;
    readonly subleaf: number;
    /** What the guest would get. */
    readonly result: { eax: number; ebx: number; ecx: number; edx: number };
  };
  msr: {
    readonly msr: number;
    readonly name: string;
    readonly write: boolean;
    readonly value: bigint;
  };
  io: {
    readonly port: number;
    readonly write: boolean;
    readonly size: number;
    readonly value: number;
    readonly string: boolean;
    readonly rep: boolean;
    readonly address?: bigint;
  };
  mmio: { readonly address: bigint; readonly write: boolean; readonly linear?: bigint };
  cr: {
    readonly cr: number;
    readonly write: boolean;
    readonly access: "mov" | "clts" | "lmsw";
    readonly gpr: number;
    readonly value: bigint;
  };
  dr: { readonly dr: number; readonly write: boolean; readonly gpr: number };
  exception: {
    readonly vector: number;
    readonly name: string;
    readonly errorCode?: number;
    /** Of a page fault. */
    readonly address?: bigint;
  };
  "external-interrupt": { readonly vector: number };
  "task-switch": { readonly selector: number; readonly source: string };
  invlpg: { readonly linear: bigint };
  "descriptor-table": { readonly instruction: string };
  rdtsc: { readonly aux: boolean };
  hypercall: { readonly number: number };
  "software-interrupt": { readonly vector: number };
  "nested-page-fault": {
    readonly gpa: bigint;
    readonly linear?: bigint;
    readonly read: boolean;
    readonly write: boolean;
    readonly fetch: boolean;
    readonly walk: boolean;
    readonly rights: number;
  };
  "shadow-write": { readonly gpa: bigint; readonly linear: bigint };
  "entry-failure": { readonly what: string; readonly text: string; readonly check: string };
  end: { readonly reason: string; readonly detail: string };
}
/** The fields of a kind; none where it says all by its name. */
export type FieldsOf<K extends string> = K extends keyof Fields ? Fields[K]
  : K extends "any" ? Record<string, unknown>
  : unknown;

type Rule = "number" | "bigint" | "boolean" | "word" | "numbers" | "addresses" | "msr" | "vector";

const PLAIN = {} as const;
/** What each key of a filter takes. */
const RULES: Record<Kind, Readonly<Record<string, Rule | "address">>> = {
  execute: { address: "address" },
  watch: {
    address: "address",
    length: "number",
    read: "boolean",
    write: "boolean",
    physical: "boolean",
  },
  step: PLAIN,
  cpuid: { leaf: "number", subleaf: "number" },
  msr: { msr: "msr", write: "boolean", value: "bigint" },
  io: { port: "numbers", write: "boolean", size: "number", value: "number", string: "boolean" },
  mmio: { address: "addresses", write: "boolean" },
  cr: { cr: "number", write: "boolean", value: "bigint", access: "word" },
  dr: { dr: "number", write: "boolean" },
  exception: { vector: "vector", errorCode: "number", address: "addresses" },
  nmi: PLAIN,
  "external-interrupt": { vector: "number" },
  "task-switch": { selector: "number", source: "word" },
  invlpg: { linear: "addresses" },
  "descriptor-table": { instruction: "word" },
  rdtsc: { aux: "boolean" },
  mwait: { armed: "boolean" },
  monitor: PLAIN,
  pause: PLAIN,
  rdpmc: PLAIN,
  wbinvd: PLAIN,
  invd: PLAIN,
  xsetbv: PLAIN,
  invpcid: PLAIN,
  rdrand: PLAIN,
  rdseed: PLAIN,
  hlt: PLAIN,
  hypercall: { number: "number" },
  "virtualization-instruction": { instruction: "word" },
  "nested-page-fault": {
    gpa: "addresses",
    read: "boolean",
    write: "boolean",
    fetch: "boolean",
    walk: "boolean",
  },
  "shadow-write": { gpa: "addresses", linear: "addresses" },
  "interrupt-window": PLAIN,
  "nmi-window": PLAIN,
  "software-interrupt": { vector: "number" },
  iret: PLAIN,
  pushf: PLAIN,
  popf: PLAIN,
  icebp: PLAIN,
  rsm: PLAIN,
  smi: PLAIN,
  init: PLAIN,
  "preemption-timer": PLAIN,
  "triple-fault": PLAIN,
  tpr: PLAIN,
  debug: PLAIN,
  "entry-failure": { what: "word" },
  any: { all: "boolean" },
};

/** All kinds, for completion and messages. */
export const kinds: readonly Kind[] = Object.keys(RULES) as Kind[];
/** The kinds every domain has; the others are exits of a hardware virtual machine. */
export const everywhere: readonly Kind[] = ["execute", "watch", "step"];

/** A checked filter. */
export type Filter = Readonly<Record<string, unknown>>;

/** Other words for kinds. */
const ALIASES: Record<string, Kind> = { memory: "watch", "ept-violation": "nested-page-fault" };

/** The kind of that name. @throws {TypeError} naming those there are */
export function toKind(kind: string): Kind {
  const known = ALIASES[kind] ?? kind;
  if (Object.hasOwn(RULES, known)) return known as Kind;
  const near = nearestName(kind, kinds);
  throw new TypeError(
    `there is no kind ${shown(kind)}${near ? `; did you mean "${near}"?` : ""}; kinds: ${
      kinds.join(" ")
    }`,
  );
}

/**
 * A filter with its names resolved and its values checked.
 *
 * @throws {TypeError} for a key the kind does not have, naming those it has
 */
export function toFilter(kind: Kind, given: object, symbols?: SymbolLookup): Filter {
  if (typeof given !== "object" || given === null) {
    throw new TypeError(`${kind}: a filter is an object, ${shown(given)} was given`);
  }
  const rules = RULES[kind];
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    const rule = Object.hasOwn(rules, key) ? rules[key] : undefined;
    if (!rule) {
      const known = Object.keys(rules).join(", ");
      throw new TypeError(
        `a filter for "${kind}" has no "${key}"; ` +
          (known ? `it has: ${known}` : "it has no keys"),
      );
    }
    if (value !== undefined) result[key] = toValue(value, rule, `${kind} filter ${key}`, symbols);
  }
  if ("address" in rules && rules.address === "address" && result.address === undefined) {
    throw new TypeError(`"${kind}" needs an address: { address: 0xc0100000 }`);
  }
  if (kind === "watch") {
    const { read = false, write = true, length = 1 } = result;
    if (!read && !write) throw new TypeError("watch: neither read nor write is asked for");
    Object.assign(result, { length: toCount(length as number, "watch length", 1), read, write });
  }
  return Object.defineProperty(result, INSPECT, { value: () => filterText(result) });
}

/** `{ address: 0xc0100000n }`: a filter as one writes it. */
export function filterText(filter: Filter): string {
  const text = (v: unknown): string =>
    Array.isArray(v)
      ? `[${v.map(text).join(", ")}]`
      : typeof v === "bigint"
      ? `${hex(v)}n`
      : typeof v === "number" && v > 9
      ? hex(v)
      : typeof v === "string"
      ? shown(v)
      : String(v);
  const words = Object.entries(filter).map(([k, v]) => `${k}: ${text(v)}`);
  return words.length ? `{ ${words.join(", ")} }` : "{}";
}

function toValue(value: unknown, rule: Rule | "address", what: string, symbols?: SymbolLookup) {
  const wrong = (expected: string) =>
    new TypeError(`${what}: ${expected} was expected, ${shown(value)} was given`);
  const address = (v: unknown) => toAddress(v as Address, what, symbols);
  switch (rule) {
    case "boolean":
      if (typeof value !== "boolean") throw wrong("true or false");
      return value;
    case "word":
      if (typeof value !== "string") throw wrong("a word");
      return value;
    case "number":
    case "bigint": {
      const whole = typeof value === "bigint" || Number.isSafeInteger(value);
      if (!whole) throw wrong("a whole number");
      return rule === "number" ? Number(value) : BigInt(value as number);
    }
    case "numbers":
      if (Array.isArray(value)) {
        if (value.length !== 2 || !value.every(Number.isSafeInteger) || value[0] > value[1]) {
          throw wrong("a number or [first, last]");
        }
        return value;
      }
      if (!Number.isSafeInteger(Number(value))) throw wrong("a number or [first, last]");
      return Number(value);
    case "addresses":
      if (!Array.isArray(value)) return address(value);
      if (value.length !== 2) throw wrong("an address or [first, last]");
      return value.map(address);
    case "address":
      return address(value);
    case "msr":
      return toNumber(value, MSR_NUMBERS, wrong('the number of an MSR, or a name such as "efer"'));
    case "vector":
      return toNumber(value, VECTORS, wrong('a vector, or a name such as "#PF"'));
  }
}

const MSR_NUMBERS = new Map(Object.entries(MSRS).map(([name, n]) => [name.toLowerCase(), n]));
const VECTORS = new Map(
  exceptionVectors.flatMap(({ name, vector }) => [
    [name.toLowerCase(), vector],
    [name.toLowerCase().replace("#", ""), vector],
  ]),
);

function toNumber(value: unknown, names: ReadonlyMap<string, number>, wrong: Error): number {
  if (typeof value === "bigint" || Number.isSafeInteger(value)) return Number(value);
  const found = typeof value === "string" ? names.get(value.toLowerCase()) : undefined;
  if (found === undefined) throw wrong;
  return found;
}

/** Whether an event's fields are as the filter wants them. */
export function matches(filter: Filter, fields: Readonly<Record<string, unknown>>): boolean {
  for (const key in filter) {
    if (key === "all") continue;
    const wanted = filter[key], value = fields[key];
    if (Array.isArray(wanted)) {
      if (value === undefined) return false;
      const v = value as number | bigint;
      if (v < wanted[0] || v > wanted[1]) return false;
    } else if (wanted !== value) {
      return false;
    }
  }
  return true;
}

/** An exit's fields as scripts see them: halves joined, names beside numbers. */
export function fieldsOf(exit: Exit): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(exit)) {
    if (key === "kind" || key === "vectoring" || key === "length") continue;
    const wide = typeof value === "object" && value !== null && "low" in value;
    fields[key] = wide ? BigInt(value.high) << 32n | BigInt(value.low) : value;
  }
  switch (exit.kind) {
    case "exception": {
      const { vector, errorCode } = exit.event;
      delete fields.event;
      delete fields.qualification;
      Object.assign(fields, { vector, name: vectorName(vector), errorCode });
      if (vector === 14) {
        fields.address = BigInt(exit.qualification.high) << 32n | BigInt(exit.qualification.low);
      }
      break;
    }
    case "msr":
      fields.name = MSR_NAMES.get(exit.msr) ?? hex(exit.msr);
      break;
    case "nested-page-fault":
    case "shadow-write":
      fields.gpa = BigInt(exit.gpa);
      break;
  }
  return fields;
}

const MSR_NAMES = new Map<number, string>(Object.entries(MSRS).map(([name, n]) => [n, name]));

/** The intercepts that events of these kinds need. Undefined where none is wanted at all. */
export function interceptsFor(
  wanted: readonly { readonly kind: Kind; readonly filter: Filter }[],
): Intercepts | undefined {
  const exits = wanted.filter((w) => !everywhere.includes(w.kind));
  if (exits.length === 0) return undefined;
  const result: { -readonly [K in keyof Intercepts]: Intercepts[K] } = {};
  for (const { kind, filter } of exits) {
    if (kind === "any" && filter.all) Object.assign(result, ALL);
    else INTERCEPTS[kind]?.(result, filter);
  }
  return result;
}

type Wanted = { -readonly [K in keyof Intercepts]: Intercepts[K] };

const ALL: Intercepts = {
  hlt: true,
  invlpg: true,
  monitor: true,
  mwait: true,
  pause: true,
  rdpmc: true,
  rdtsc: true,
  dr: true,
  wbinvd: true,
  descriptorTables: true,
  rdrand: true,
  rdseed: true,
  nmi: true,
  iret: true,
  pushf: true,
  popf: true,
  softwareInterrupts: true,
  icebp: true,
  crRead: 0x108,
  crWrite: 0x108,
  cr0Bits: 0xffff_ffff,
  cr4Bits: 0xffff_ffff,
  exceptions: 0xffff_ffff,
  pageFault: { mask: 0, match: 0 },
  ports: "all",
  msrReads: "all",
  msrWrites: "all",
};

const flag = (name: keyof Intercepts) => (w: Wanted) => void Object.assign(w, { [name]: true });

const INTERCEPTS: Partial<Record<Kind, (w: Wanted, filter: Filter) => void>> = {
  hlt: flag("hlt"),
  invlpg: flag("invlpg"),
  monitor: flag("monitor"),
  mwait: flag("mwait"),
  pause: flag("pause"),
  rdpmc: flag("rdpmc"),
  rdtsc: flag("rdtsc"),
  dr: flag("dr"),
  wbinvd: flag("wbinvd"),
  "descriptor-table": flag("descriptorTables"),
  rdrand: flag("rdrand"),
  rdseed: flag("rdseed"),
  nmi: flag("nmi"),
  iret: flag("iret"),
  pushf: flag("pushf"),
  popf: flag("popf"),
  "software-interrupt": flag("softwareInterrupts"),
  icebp: flag("icebp"),
  io: (w) => void (w.ports = "all"),
  msr: (w, { msr, write }) => {
    const add = (old: Intercepts["msrReads"]): Intercepts["msrReads"] =>
      msr === undefined || old === "all"
        ? "all"
        : [...(old === "none" ? [] : old ?? []), msr as number];
    if (write !== true) w.msrReads = add(w.msrReads);
    if (write !== false) w.msrWrites = add(w.msrWrites);
  },
  cr: (w, { cr, write }) => {
    const is = (n: number) => cr === undefined || cr === n;
    const bits = (is(3) ? 8 : 0) | (is(8) ? 0x100 : 0);
    if (write !== true) w.crRead = (w.crRead ?? 0) | bits;
    if (write === false) return;
    w.crWrite = (w.crWrite ?? 0) | bits;
    if (is(0)) w.cr0Bits = 0xffff_ffff;
    if (is(4)) w.cr4Bits = 0xffff_ffff;
  },
  exception: (w, { vector }) => {
    const bits = vector === undefined ? 0xffff_ffff : 1 << (vector as number);
    w.exceptions = ((w.exceptions ?? 0) | bits) >>> 0;
    if (bits & 1 << 14) w.pageFault = { mask: 0, match: 0 };
  },
};
