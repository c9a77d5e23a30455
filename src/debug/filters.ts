/**
 * Filters: what each kind's keys must be, which of them can never match together, and whether an
 * event is meant. One table; the messages and completion are made from it, too.
 *
 * @module
 */
import { exceptionVectors } from "../abi/x86/vectors.ts";
import {
  type Check,
  count,
  flag,
  linearAddress,
  oneOf,
  options,
  physicalAddress,
  rangeOf,
  type Shape,
  type SymbolLookup,
  toAddress,
  u16,
  u32,
  u8,
  whole,
  word,
  wrongType,
} from "./check.ts";
import type { FieldsOf, Kind } from "./kinds.ts";
import { MSRS } from "./register_file.ts";
import { counted, hex, INSPECT, nearestName, shown } from "./values.ts";

/** A checked filter. */
export type Filter = Readonly<Record<string, unknown>>;

/** A kind's row: what its filter takes, and the fields that its events have. */
interface Row<K extends Kind> {
  readonly filter: Shape;
  readonly fields: readonly (keyof FieldsOf<K> & string)[];
}

/** A number, or one of the names it goes by. */
function named(names: Iterable<readonly [string, number]>, number: Check<number>, what: string) {
  const plain = (name: string) => name.toLowerCase().replace("#", "");
  const known = new Map(Array.from(names, ([name, n]) => [plain(name), { name, n }]));
  return (value: unknown, key: string): number => {
    if (typeof value !== "string") return number(value, key);
    const found = known.get(plain(value));
    if (found) return found.n;
    const near = known.get(nearestName(plain(value), known.keys()) ?? "");
    throw wrongType(key, `${what}${near ? ` (did you mean "${near.name}"?)` : ""}`, value);
  };
}

const msr = named(
  Object.entries(MSRS),
  u32,
  'the number of an MSR, or a name such as "efer"',
);
/** A vector up to `last`, or an exception's name. */
const vectorTo = (last: number) =>
  named(
    exceptionVectors.map(({ name, vector }) => [name, vector] as const),
    whole(0, last),
    `a vector from 0 to ${last}, or a name such as "#PF"`,
  );
const exception = vectorTo(31);
/** What can be injected: a vector, or an exception's name. */
export const injectable: (value: unknown, key: string) => number = vectorTo(255);

/** Instructions of either vendor's extensions that leave a guest. */
const VIRTUALIZATION = [
  ...[
    "vmclear",
    "vmlaunch",
    "vmptrld",
    "vmptrst",
    "vmread",
    "vmresume",
    "vmwrite",
    "vmxoff",
    "vmxon",
  ],
  ...["invept", "invvpid"],
  ...["vmrun", "vmload", "vmsave", "stgi", "clgi", "invlpga", "skinit"],
];

const PLAIN = { filter: {}, fields: [] };

/** All kinds. */
const ROWS: { readonly [K in Kind]: Row<K> } = {
  execute: { filter: { address: linearAddress }, fields: ["address"] },
  watch: {
    // Linear or guest-physical: which of them is checked where both are known.
    filter: {
      address: toAddress,
      length: count,
      read: flag,
      write: flag,
      physical: flag,
    },
    fields: ["address", "physical", "length", "write", "delivery", "old", "value"],
  },
  step: PLAIN,
  cpuid: { filter: { leaf: u32, subleaf: u32 }, fields: ["leaf", "subleaf", "result"] },
  msr: { filter: { msr, write: flag, value: word(64) }, fields: ["msr", "name", "write", "value"] },
  io: {
    filter: { port: rangeOf(u16), write: flag, size: oneOf(1, 2, 4), value: u32, string: flag },
    fields: ["port", "write", "size", "value", "string", "rep", "address"],
  },
  mmio: {
    filter: { address: rangeOf(physicalAddress), write: flag },
    fields: ["address", "write", "linear"],
  },
  cr: {
    filter: {
      cr: oneOf(0, 3, 4, 8),
      write: flag,
      value: word(64),
      access: oneOf("mov", "clts", "lmsw"),
    },
    fields: ["cr", "write", "access", "gpr", "value"],
  },
  dr: { filter: { dr: whole(0, 7), write: flag }, fields: ["dr", "write", "gpr"] },
  exception: {
    filter: { vector: exception, errorCode: u32, address: rangeOf(linearAddress) },
    fields: ["vector", "name", "errorCode", "address"],
  },
  nmi: PLAIN,
  "external-interrupt": { filter: { vector: u8 }, fields: ["vector"] },
  "task-switch": {
    filter: { selector: u16, source: oneOf("call", "iret", "jmp", "gate") },
    fields: ["selector", "source"],
  },
  invlpg: { filter: { linear: rangeOf(toAddress) }, fields: ["linear"] },
  "descriptor-table": {
    filter: {
      instruction: oneOf("sgdt", "sidt", "lgdt", "lidt", "sldt", "str", "lldt", "ltr"),
    },
    fields: ["instruction"],
  },
  rdtsc: { filter: { aux: flag }, fields: ["aux"] },
  mwait: { filter: { armed: flag }, fields: ["armed"] },
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
  hypercall: { filter: { number: u32 }, fields: ["number"] },
  "virtualization-instruction": {
    filter: { instruction: oneOf(...VIRTUALIZATION) },
    fields: ["instruction"],
  },
  "nested-page-fault": {
    filter: { gpa: rangeOf(physicalAddress), read: flag, write: flag, fetch: flag, walk: flag },
    fields: ["gpa", "linear", "read", "write", "fetch", "walk", "rights"],
  },
  "shadow-write": {
    filter: { gpa: rangeOf(physicalAddress), linear: rangeOf(linearAddress) },
    fields: ["gpa", "linear"],
  },
  "interrupt-window": PLAIN,
  "nmi-window": PLAIN,
  "software-interrupt": { filter: { vector: u8 }, fields: ["vector"] },
  iret: PLAIN,
  pushf: PLAIN,
  popf: PLAIN,
  icebp: PLAIN,
  "coprocessor-error": PLAIN,
  rsm: PLAIN,
  smi: PLAIN,
  init: PLAIN,
  "preemption-timer": PLAIN,
  "triple-fault": PLAIN,
  tpr: PLAIN,
  debug: PLAIN,
  "entry-failure": {
    filter: { what: oneOf("controls", "host-state", "guest-state", "msr-loading", "instruction") },
    fields: ["what", "text", "check"],
  },
  any: { filter: { all: flag }, fields: [] },
};

/** All kinds, for completion and messages. */
export const kinds: readonly Kind[] = Object.keys(ROWS) as Kind[];

/** Names of the fields that events of a kind have; of "any", those of all. */
export function fieldNames(name: string): readonly string[] {
  const kind = toKind(name);
  if (kind !== "any") return ROWS[kind].fields;
  return [...new Set(kinds.flatMap((k): readonly string[] => ROWS[k].fields))];
}

/** Other words for kinds. */
const ALIASES: Record<string, Kind> = { memory: "watch", "ept-violation": "nested-page-fault" };

/** The kind of that name. @throws {TypeError} naming those there are */
export function toKind(kind: unknown): Kind {
  if (typeof kind !== "string") throw wrongType("kind", "the name of a kind", kind);
  const known = Object.hasOwn(ALIASES, kind) ? ALIASES[kind] : kind;
  if (Object.hasOwn(ROWS, known)) return known as Kind;
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
 * @throws {RangeError} for a value that no event can have, or values that cannot come together
 */
export function toFilter(kind: Kind, given: unknown, symbols?: SymbolLookup): Filter {
  const { filter: shape } = ROWS[kind];
  const result = options(shape)(given, `${kind} filter`, symbols) as Record<string, unknown>;
  if (kind === "execute" || kind === "watch") {
    if (result.address === undefined) {
      throw new TypeError(`"${kind}" needs an address: { address: 0xc0100000 }`);
    }
  }
  if (kind === "watch") toWatch(result);
  for (const { kinds, when, because } of NEVER) {
    if (kinds.includes(kind) && when(result)) {
      throw new RangeError(`${kind} filter: ${filterText(result)} never matches: ${because}`);
    }
  }
  return Object.defineProperty(result, INSPECT, { value: () => filterText(result) });
}

/** What a watch leaves out is filled in. */
function toWatch(watch: Record<string, unknown>): void {
  const { read = false, write = true, length = 1, physical } = watch;
  const address = (physical ? physicalAddress : linearAddress)(
    watch.address,
    "watch filter address",
  );
  if (address + BigInt(length as number) > 1n << 64n) {
    throw new RangeError(
      `watch filter: ${counted(length as number, "byte")} from ${hex(address)} end beyond 64 bits`,
    );
  }
  Object.assign(watch, { length, read, write });
}

/** Keys that cannot come together. */
const NEVER: readonly {
  readonly kinds: readonly Kind[];
  readonly when: (filter: Filter) => boolean;
  readonly because: string;
}[] = [
  {
    kinds: ["watch"],
    when: ({ read, write }) => !read && !write,
    because: "neither read nor write is asked for",
  },
  {
    kinds: ["msr", "io", "cr"],
    when: ({ value, write }) => value !== undefined && write === false,
    because: "a read has no value yet",
  },
  {
    kinds: ["io"],
    when: ({ value, string }) => value !== undefined && string === true,
    because: "the value of INS and OUTS is in memory",
  },
  {
    kinds: ["io"],
    when: ({ value, size }) => (value as number) >= 2 ** (8 * ((size as number) ?? 4)),
    because: "the value has more bytes than the access",
  },
  {
    kinds: ["cr"],
    when: ({ cr = 0, write, access }) =>
      (access === "clts" || access === "lmsw") && (cr !== 0 || write === false),
    because: "CLTS and LMSW write CR0",
  },
  {
    kinds: ["exception"],
    when: ({ vector }) => vector === 2,
    because: 'an NMI is of kind "nmi"',
  },
  {
    kinds: ["exception"],
    when: ({ vector, address }) => address !== undefined && (vector ?? 14) !== 14,
    because: "only a page fault (#PF, 14) has an address",
  },
  {
    kinds: ["exception"],
    when: ({ vector, errorCode }) => errorCode !== undefined && withoutCode(vector as number),
    because: "this exception has no error code",
  },
  {
    kinds: ["nested-page-fault"],
    when: ({ read, write, fetch }) => read === false && write === false && fetch === false,
    because: "it is a read, a write or a fetch",
  },
];

const withoutCode = (vector: number | undefined) =>
  exceptionVectors.some((e) => e.vector === vector && !e.errorCode);

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
