/**
 * Filters: what a kind's row says of its keys becomes checks, with their messages; and whether an event
 * is meant.
 *
 * @module
 */
import { EXIT_KINDS, type Refusal } from "../../hvm/exit_kinds.ts";
import { type Field, type FieldTable, isFiltered } from "../../hvm/fields.ts";
import {
  flag,
  linearAddress,
  oneOf,
  options,
  type OptionShape,
  physicalAddress,
  rangeOf,
  type SymbolLookup,
  text,
  toAddress,
  type ValueCheck,
  whole,
  word,
  wrongType,
} from "../check.ts";
import { filterFields, type Kind, kinds, rows } from "../kinds.ts";
import { counted, hex, INSPECT, nearestName, shown } from "../values.ts";

/** A checked filter. */
export type Filter = Readonly<Record<string, unknown>>;

/** A number, or one of the names it goes by. */
function named(
  names: Iterable<readonly [string, number]>,
  number: ValueCheck<number>,
  what: string,
) {
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

/** Paths as a filter says them. */
class PathFilter {
  readonly #means: RegExp;
  constructor(readonly pattern: string) {
    const below = pattern.endsWith("/") ? `${pattern}*` : pattern;
    const source = below.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(
      ".*",
    );
    this.#means = new RegExp(`^${source}$`);
  }
  matches(path: unknown): boolean {
    return typeof path === "string" && this.#means.test(path);
  }
  toString(): string {
    return shown(this.pattern);
  }
}

/** The check of what a filter or a reply says of a field. */
function checkOf(field: Field): ValueCheck<unknown> {
  const each = checkOfOne(field);
  return field.range ? rangeOf(each as ValueCheck<number | bigint>) : each;
}
function checkOfOne({ is, min = 0, max = 0, bits = 64, of = [], names, expected }: Field) {
  switch (is) {
    case "number": {
      const number = whole(min, max);
      return names ? named(Object.entries(names), number, expected!) : number;
    }
    case "flag":
      return flag;
    case "choice":
      return oneOf(...of);
    case "word":
      return word(bits);
    case "linear":
      return linearAddress;
    case "address":
      return toAddress;
    case "physical":
      return physicalAddress;
    case "path":
      return (value: unknown, key: string) => new PathFilter(text(value, key));
    default:
      throw new Error(`a field that is "${is}" is in no filter`);
  }
}
/** Checks of what may be said of fields. */
export const shapeOf = (fields: FieldTable): OptionShape =>
  Object.fromEntries(
    Object.entries(fields).filter(([, f]) => isFiltered(f)).map(([key, f]) => [key, checkOf(f)]),
  );

const shapes = new Map(kinds.map((kind) => [kind, shapeOf(filterFields(kind))]));

/** What can be injected: a vector, or an exception's name. */
export const injectable = checkOf({
  ...EXIT_KINDS.exception.fields.vector,
  max: 255,
  expected: 'a vector from 0 to 255, or a name such as "#PF"',
}) as (value: unknown, key: string) => number;

/** A status by its name, or by its number of either sign. @throws {TypeError} naming what is like it */
export const toStatus = ({ names, expected }: Refusal, status: unknown): number =>
  Math.abs(
    named(Object.entries(names), whole(-0xfff, 0xfff), expected)(
      typeof status === "string" ? status.replace(/^-/, "") : status,
      "deny",
    ),
  );

/** Names of the fields that events of a kind have; of "any", those of all. */
export function fieldNames(name: string): readonly string[] {
  const kind = toKind(name);
  const of = kind === "any" ? kinds : [kind];
  return [...new Set(of.flatMap((k) => Object.keys(rows[k].fields)))];
}

/** Other words for kinds. */
const ALIASES: Record<string, Kind> = { memory: "watch", "ept-violation": "nested-page-fault" };

/** The kind of that name. @throws {TypeError} naming those there are */
export function toKind(kind: unknown): Kind {
  if (typeof kind !== "string") throw wrongType("kind", "the name of a kind", kind);
  const known = Object.hasOwn(ALIASES, kind) ? ALIASES[kind] : kind;
  if (Object.hasOwn(rows, known)) return known as Kind;
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
  const result = options(shapes.get(kind)!)(given, `${kind} filter`, symbols) as Record<
    string,
    unknown
  >;
  for (const [key, { needed }] of Object.entries(filterFields(kind))) {
    if (needed && result[key] === undefined) {
      throw new TypeError(`"${kind}" needs an ${key}: { ${key}: 0xc0100000 }`);
    }
  }
  if (kind === "watch") toWatch(result);
  for (const { when, because } of rows[kind].never ?? []) {
    if (when(result)) {
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
    if (key === "all" || key === "vcpu") continue;
    const wanted = filter[key], value = fields[key];
    if (wanted instanceof PathFilter) {
      if (!wanted.matches(value)) return false;
    } else if (Array.isArray(wanted)) {
      if (value === undefined) return false;
      const v = value as number | bigint;
      if (v < wanted[0] || v > wanted[1]) return false;
    } else if (wanted !== value) {
      return false;
    }
  }
  return true;
}
