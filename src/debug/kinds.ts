/**
 * What one can break on: the kinds of exit (hvm/exit_kinds.ts), and those that are the debugger's own;
 * and what follows from their rows: types of filters and events, events of exits, intercepts.
 *
 * @module
 */
import { GUEST_PROCESSORS } from "../abi/limits.ts";
import type { Exit } from "../hvm/exit.ts";
import {
  EXIT_KINDS,
  type ExitKind,
  exitKinds,
  exitRows,
  type ExitWish,
  type Guest,
  type KindRow,
  type Values,
} from "../hvm/exit_kinds.ts";
import {
  type FieldTable as Shape,
  flag,
  type GivenOf,
  linear,
  type SeenOf,
} from "../hvm/fields.ts";
import type { PlatformKind } from "../xen/platform_watch.ts";
import { PLATFORM_KINDS } from "./platform_kinds.ts";
import { counted, hex } from "./values.ts";

/** Kinds that are no exits. */
const OWN_KINDS = {
  execute: {
    meaning: "before the instruction at a linear address, or at a symbol, is executed",
    example: "b main",
    help: "At the prompt the address alone is enough.",
    fields: { address: linear },
    filter: { address: { is: "linear", needed: true } },
    everywhere: true,
    describe: ({ address }: Values, place: (address: unknown) => string): string =>
      `execute ${place(address)}`,
  },
  watch: {
    meaning: "after an instruction touched memory",
    help: "`length` bytes (1 if not given) from a linear address, or with `physical` from a " +
      "guest-physical one; `write` is true unless said otherwise, `read` false. At the prompt it is " +
      "a command of its own. An event has the address of the access; `delivery`: the processor did " +
      "it while it delivered an event.",
    example: "watch ticks",
    fields: {
      address: linear,
      physical: { is: "physical", optional: true },
      length: { is: "number", max: 0x8000_0000 },
      write: flag,
      delivery: flag,
      old: { is: "word" },
      value: { is: "word" },
    },
    // Linear or guest-physical: which of them is checked where both are known.
    filter: {
      address: { is: "address", needed: true },
      length: { is: "number", min: 1, max: 0x8000_0000 },
      read: flag,
      write: flag,
      physical: flag,
    },
    never: [{
      when: ({ read, write }: Values): boolean => !read && !write,
      because: "neither read nor write is asked for",
    }],
    everywhere: true,
    describe: (f: Values, place: (address: unknown) => string): string => {
      const value = hex(f.value as bigint);
      const bytes = counted(f.length as number, "byte");
      return `watch ${f.write ? "write" : "read"} of ${bytes} at ${place(f.address)}: ` +
        (f.write ? `${hex(f.old as bigint)} -> ${value}` : value) +
        (f.delivery ? " (delivery of an event)" : "");
    },
  },
  step: {
    meaning: "after each instruction",
    example: "s 10",
    fields: {},
    everywhere: true,
  },
  any: {
    meaning: "any exit",
    help: "With `all`, everything that can exit does.",
    example: "b any all",
    fields: {},
    filter: { all: flag },
    of: "any",
  },
  mmio: {
    meaning: "an access to a guest-physical address without memory: a device",
    example: "b mmio address=0xfee00000-0xfee00fff",
    fields: {
      address: { is: "physical", range: true },
      write: flag,
      linear: { is: "linear", optional: true, filter: false },
    },
    of: "nested-page-fault",
    when: ({ gpa }: Values, guest: Guest): boolean => !guest.isMemory(gpa as number),
    see: ({ gpa, write, linear }: Values): Values => ({ address: gpa, write, linear }),
    describe: ({ write, address }: Values): string =>
      `mmio ${write ? "write" : "read"} ${hex(address as bigint)}`,
  },
} as const satisfies Readonly<Record<string, OwnRow>>;

/** A row of a kind that is no exit. */
interface OwnRow extends KindRow {
  /** Every domain has it; the others are exits of a hardware virtual machine. */
  readonly everywhere?: true;
  /** The exits that it is another name of. */
  readonly of?: ExitKind | "any";
  /** Which of them, where not all are. */
  when?(exit: Values, guest: Guest): boolean;
  /** What it has of their fields, where that is not all. */
  see?(fields: Values): Values;
}

/** @ignore The rows, as types. */
export type KindRows = typeof OWN_KINDS & typeof PLATFORM_KINDS & typeof EXIT_KINDS;
/** @ignore What filters of a row may say. */
export type FilterOf<R> = R extends { filter: infer F extends Shape } ? GivenOf<F>
  : R extends { fields: infer F extends Shape } ? GivenOf<F>
  : never;

/** Something to break on. */
export type Kind = keyof KindRows;

/** What filters may say, by kind, and of which vCPU. What is left out matches all. */
export type Filters = { [K in Kind]: FilterOf<KindRows[K]> & { readonly vcpu?: number } };

/** What an event of a kind has besides what all have. */
export type Fields = { [K in Kind]: SeenOf<KindRows[K]["fields"]> } & {
  end: { readonly reason: string; readonly detail: string };
};
/** The fields of a kind; none where it says all by its name. */
export type FieldsOf<K extends string> = K extends "any" ? Record<string, unknown>
  : K extends keyof Fields ? Fields[K]
  : unknown;

/** Every row. */
export const rows: Readonly<Record<Kind, KindRow>> = {
  ...OWN_KINDS,
  ...PLATFORM_KINDS,
  ...EXIT_KINDS,
};

/** All kinds, for completion and messages. */
export const kinds: readonly Kind[] = Object.keys(rows) as Kind[];

/** The kinds every domain has; the others are exits of a hardware virtual machine. */
export const everywhere: readonly Kind[] = kinds.filter((kind) => "everywhere" in rows[kind]);

/** Those of a domain that knows Xen: what it does with others. */
export const isPlatform = (kind: string): kind is PlatformKind =>
  Object.hasOwn(PLATFORM_KINDS, kind);

export const platformKinds = Object.keys(PLATFORM_KINDS) as readonly PlatformKind[];

/** The others. */
export const exitEvents: readonly Kind[] = kinds.filter((kind) => !everywhere.includes(kind));

export const isExit = (kind: string): kind is ExitKind => Object.hasOwn(EXIT_KINDS, kind);

/** What filters of any kind may say besides: which vCPU. */
const OF_VCPU = { vcpu: { is: "number", max: GUEST_PROCESSORS.max - 1 } } as const satisfies Shape;
/** What filters of a kind may say. */
export const filterFields = (kind: Kind): Shape => ({
  ...rows[kind].filter ?? rows[kind].fields,
  ...OF_VCPU,
});

/** An exit's fields as scripts see them: halves joined, names beside numbers. */
export function fieldsOf(exit: Exit, guest?: Guest): Record<string, unknown> {
  const { raw, fields: has, see } = exitRows[exit.kind];
  const fields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(exit)) {
    if (raw || !Object.hasOwn(has, key)) continue;
    if (has[key].is === "physical") fields[key] = BigInt(value);
    else if (typeof value !== "object") fields[key] = value;
    else fields[key] = BigInt(value.high) << 32n | BigInt(value.low);
  }
  const made = see?.(exit as unknown as Values, guest);
  return made ? Object.defineProperties(fields, Object.getOwnPropertyDescriptors(made)) : fields;
}

/** Names that an exit has beside its own, by its kind; those of any stand last. */
const otherNames: ReadonlyMap<ExitKind, readonly (readonly [Kind, OwnRow])[]> = new Map(
  exitKinds.map((exit) => {
    const of = (wanted: string) =>
      Object.entries<OwnRow>(OWN_KINDS).filter(([, row]) => row.of === wanted);
    return [exit, [...of(exit), ...of("any")] as [Kind, OwnRow][]];
  }),
);

/** An exit as those see it who wait for a kind. */
export interface SeenExit {
  /** What is waited for. */
  readonly kind: Kind;
  /** What it is called, where it was waited for as any. */
  readonly shown: Kind;
  readonly fields: Values;
}

/** An exit by all the names it goes by, its own first. */
export function namesOf(exit: Exit, guest: Guest): readonly SeenExit[] {
  const { kind } = exit, fields = fieldsOf(exit, guest);
  const seen: SeenExit[] = [{ kind, shown: kind, fields }];
  for (const [name, { of, when, see }] of otherNames.get(kind)!) {
    if (when && !when(exit as unknown as Values, guest)) continue;
    seen.push({ kind: name, shown: of === "any" ? kind : name, fields: see?.(fields) ?? fields });
  }
  return seen;
}

/** An event in one line. */
export function eventText(
  kind: Kind | "end",
  fields: Values,
  where: { place(address: bigint): string },
): string {
  if (kind === "end") return `the domain has ended: ${fields.reason} (${fields.detail})`;
  const { describe } = rows[kind];
  if (describe) return describe(fields, (address) => where.place(address as bigint));
  const words = Object.entries(fields).filter(([, v]) => v !== undefined && typeof v !== "object")
    .map(([k, v]) => `${k} ${typeof v === "bigint" ? hex(v) : v}`);
  return `${kind}${words.length ? ` ${words.join(", ")}` : ""}`;
}

/** The exits that events of these kinds need. */
export const exitsFor = (
  wanted: Iterable<{ readonly kind: Kind; readonly filter: Values }>,
): readonly ExitWish[] =>
  Array.from(wanted).flatMap(({ kind, filter }): readonly ExitWish[] => {
    if (isExit(kind)) return [[kind, filter]];
    return kind === "any" && filter.all ? exitKinds.map((each): ExitWish => [each, {}]) : [];
  });
