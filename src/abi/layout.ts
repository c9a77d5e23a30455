/**
 * How a structure in memory is described, and a typed view of its bytes.
 *
 * A description lists fields with the types of C, and lays itself out as gcc does for i386 (width 32)
 * and for x86-64 (width 64): so one description serves guests of both widths. A structure that a manual
 * gives by offsets, with holes or packed, is described by them (`placed`). All fields are little-endian.
 *
 * Sources: System V ABI, i386 and x86-64 supplements, chapter 3 (sizes and alignment).
 *
 * @example
 * ```ts
 * const point = struct("point", { kind: "u8", at: group({ x: "u32", y: "ulong" }) });
 * const view = new View(point, 64).set("kind", 3).set("at.y", 5n);
 * view.get("at.y"); // 5n: numbers up to 32 bits, bigints for what has or may have 64
 * ```
 *
 * @module
 */

/** Whose layout: of 32-bit (i386) or of 64-bit (x86-64) code. */
export type AbiWidth = 32 | 64;

/**
 * Integers. `ulong` and `handle` (a guest's pointer) are as wide as the code; `u64a` is a 64-bit one that
 * aligns to 8 in 32-bit code too (`uint64_aligned_t`).
 */
export type Scalar =
  | "u8"
  | "u16"
  | "u32"
  | "u64"
  | "i8"
  | "i16"
  | "i32"
  | "i64"
  | "u64a"
  | "ulong"
  | "handle";

/** So many in a row; how many may depend on the width. */
export interface ArrayOf<T extends AbiType = AbiType> {
  readonly kind: "array";
  readonly of: T;
  readonly count: number | Readonly<Record<AbiWidth, number>>;
}

/** Fields after each other, or in a union all at the start. `name` is the tag in C; "" when it has none. */
export interface StructOf<F extends StructFields = StructFields> {
  readonly kind: "struct" | "union";
  readonly name: string;
  readonly fields: F;
  /** Offsets by name, where the fields have them from a manual. */
  readonly offsets?: Readonly<Record<string, number>>;
  /** Bytes, where the offsets do not say it. */
  readonly size?: number;
}

/** Parts of one unsigned integer, from bit 0 up: name to number of bits. */
export interface BitsOf<P extends Readonly<Record<string, number>> = Record<string, number>> {
  readonly kind: "bits";
  readonly unit: "u8" | "u16" | "u32";
  readonly parts: P;
}

/** A field that differs by width, or that one width alone has. */
export interface ByWidth<T extends AbiType = AbiType> {
  readonly kind: "by width";
  readonly of: { readonly [W in AbiWidth]?: T };
}

/** What a field can be. */
export type AbiType = Scalar | ArrayOf | StructOf | BitsOf | ByWidth;
/** Fields in their order. */
export type StructFields = Readonly<{ [name: string]: AbiType }>;

/** A structure with its tag in C. */
export const struct = <const F extends StructFields>(name: string, fields: F): StructOf<F> => ({
  kind: "struct",
  name,
  fields,
});
/** A structure inside another, which has no name. */
export const group = <const F extends StructFields>(fields: F): StructOf<F> => struct("", fields);
/** A union; `name` where it has one. */
export const union = <const F extends StructFields>(fields: F, name = ""): StructOf<F> => ({
  kind: "union",
  name,
  fields,
});
/** `count` of `of`; the count may depend on the width. */
export const array = <const T extends AbiType>(of: T, count: ArrayOf["count"]): ArrayOf<T> => ({
  kind: "array",
  of,
  count,
});
/** Bit fields that share the integer `unit`: name to number of bits, from bit 0 up. */
export const bits = <const P extends Readonly<Record<string, number>>>(
  unit: BitsOf["unit"],
  parts: P,
): BitsOf<P> => ({ kind: "bits", unit, parts });
/** A field that is one thing in 32-bit and another in 64-bit code. */
export const byWidth = <const T extends AbiType, const U extends AbiType>(
  narrow: T,
  wide: U,
): ByWidth<T | U> => ({ kind: "by width", of: { 32: narrow, 64: wide } });
/** A field that only 32-bit, or only 64-bit code has. */
export const only = <const T extends AbiType>(width: AbiWidth, type: T): ByWidth<T> => ({
  kind: "by width",
  of: { [width]: type },
});
/** A structure by the offsets that a manual gives: name to `[offset, type]`. `size` is its end, when more. */
export function placed<const F extends Readonly<Record<string, readonly [number, AbiType]>>>(
  name: string,
  fields: F,
  size?: number,
): StructOf<{ readonly [K in keyof F]: F[K][1] }> {
  const pick = <T>(part: (field: readonly [number, AbiType]) => T) =>
    Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, part(field)]));
  return {
    kind: "struct",
    name,
    fields: pick(([, type]) => type) as { readonly [K in keyof F]: F[K][1] },
    offsets: pick(([offset]) => offset),
    size,
  };
}

const SCALAR_SIZE = {
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
  i8: 1,
  i16: 2,
  i32: 4,
  i64: 8,
  u64a: 8,
} as const;

/** Bytes that a type takes. */
export function sizeOf(type: AbiType, width: AbiWidth): number {
  if (type === "ulong" || type === "handle") return width / 8;
  if (typeof type === "string") return SCALAR_SIZE[type];
  if (type.kind === "bits") return SCALAR_SIZE[type.unit];
  if (type.kind === "array") return sizeOf(type.of, width) * countOf(type, width);
  if (type.kind === "by width") return sizeOf(typeAt(type, width), width);
  let size = sizes[width].get(type);
  if (size === undefined) sizes[width].set(type, size = sizeOfStruct(type, width));
  return size;
}
/** Those of structures, by width: hypercalls ask for them at each argument. */
const sizes: Readonly<Record<AbiWidth, WeakMap<StructOf, number>>> = {
  32: new WeakMap(),
  64: new WeakMap(),
};
function sizeOfStruct(type: StructOf, width: AbiWidth): number {
  const ends = fieldsOf(type, width).map(({ type, offset }) => offset + sizeOf(type, width));
  const end = Math.max(0, type.size ?? 0, ...ends);
  return type.offsets ? end : roundUp(end, alignOf(type, width));
}

function alignOf(type: AbiType, width: AbiWidth): number {
  if (type === "u64a") return 8;
  if (typeof type === "string") return Math.min(sizeOf(type, width), width / 8);
  if (type.kind === "bits") return SCALAR_SIZE[type.unit];
  if (type.kind === "array") return alignOf(type.of, width);
  if (type.kind === "by width") return alignOf(typeAt(type, width), width);
  if (type.offsets) return 1;
  return Math.max(1, ...fieldsOf(type, width).map(({ type }) => alignOf(type, width)));
}

/** What a field is at a width; nothing at all where it is not there. */
const typeAt = ({ of }: ByWidth, width: AbiWidth): AbiType => of[width] ?? NOTHING;
const NOTHING = struct("", {});

const roundUp = (value: number, to: number) => Math.ceil(value / to) * to;

const countOf = ({ count }: ArrayOf, width: AbiWidth) =>
  typeof count === "number" ? count : count[width];

/** A view of a structure that is the same at both widths: one of fixed types, or of offsets. */
export const fixed = <F extends StructFields>(
  type: StructOf<F>,
  bytes?: Uint8Array,
  at?: number,
): View<F> => new View(type, 64, bytes, at);

/** The fields that a structure has at a width, with their offsets. */
export function fieldsOf(
  { kind, fields, offsets }: StructOf,
  width: AbiWidth,
): { name: string; type: Exclude<AbiType, ByWidth>; offset: number }[] {
  let end = 0;
  return Object.entries(fields).flatMap(([name, field]) => {
    const type = typeof field === "object" && field.kind === "by width"
      ? typeAt(field, width)
      : field;
    if (type === NOTHING) return [];
    if (typeof type === "object" && type.kind === "by width") {
      throw new TypeError(`${name} differs by width twice: expected the type itself`);
    }
    const offset = offsets?.[name] ?? (kind === "union" ? 0 : roundUp(end, alignOf(type, width)));
    end = offset + sizeOf(type, width);
    return [{ name, type, offset }];
  });
}

/** Where a field stands. */
export interface FieldPlace {
  /** Bytes from the start of the structure. */
  readonly offset: number;
  /** Bytes of the field, or of one element. */
  readonly size: number;
  /** Elements; undefined for what is no array. */
  readonly count?: number;
  /** What the field, or an element of it, is. */
  readonly type: Scalar | StructOf | BitsOf;
  /** For a part of an integer: its first bit, and its mask from bit 0. */
  readonly shift?: number;
  readonly mask?: number;
}

/** A structure as one width lays it out. */
export interface Layout {
  /** Bytes. */
  readonly size: number;
  /** By path: names of nested structures and unions joined by dots. */
  readonly places: ReadonlyMap<string, FieldPlace>;
}

const known: Readonly<Record<AbiWidth, WeakMap<StructOf, Layout>>> = {
  32: new WeakMap(),
  64: new WeakMap(),
};

/** How a width lays out a structure. */
export function layoutOf(type: StructOf, width: AbiWidth): Layout {
  let layout = known[width].get(type);
  if (!layout) {
    layout = { size: sizeOf(type, width), places: new Map(placesIn(type, width, "", 0)) };
    known[width].set(type, layout);
  }
  return layout;
}

function placesIn(
  type: StructOf,
  width: AbiWidth,
  prefix: string,
  base: number,
): [string, FieldPlace][] {
  return fieldsOf(type, width).flatMap(({ name, type, offset: inside }): [string, FieldPlace][] => {
    const path = prefix + name, offset = base + inside;
    if (typeof type === "string") return [[path, { offset, type, size: sizeOf(type, width) }]];
    if (type.kind === "bits") return partsOf(type, path, offset);
    if (type.kind === "array") return [[path, elementsOf(type, width, offset)]];
    const place = { offset, type, size: sizeOf(type, width) };
    return [[path, place], ...placesIn(type, width, `${path}.`, offset)];
  });
}

function partsOf(type: BitsOf, path: string, offset: number): [string, FieldPlace][] {
  let shift = 0;
  const size = SCALAR_SIZE[type.unit];
  const places = Object.entries(type.parts).map(([name, count]): [string, FieldPlace] => {
    const mask = count === 32 ? 0xffff_ffff : 2 ** count - 1;
    const place = { offset, size, type: type.unit, shift, mask };
    shift += count;
    return [`${path}.${name}`, place];
  });
  if (shift > size * 8) throw new RangeError(`${path} has ${shift} bits; expected ${size * 8}`);
  return [[path, { offset, size, type: type.unit }], ...places];
}

function elementsOf(type: ArrayOf, width: AbiWidth, offset: number): FieldPlace {
  const { of } = type;
  if (typeof of === "object" && of.kind !== "struct" && of.kind !== "union") {
    throw new TypeError(`an array of ${of.kind} has no view: expected integers or structures`);
  }
  return { offset, size: sizeOf(of, width), count: countOf(type, width), type: of };
}

// Types of paths and values.

type Bare<T> = T extends ByWidth<infer U> ? U : T;
type Names<F> = keyof F & string;

/** Paths that lead to integers, or to arrays of them. */
export type ValuePath<F extends StructFields> = {
  [K in Names<F>]: Bare<F[K]> extends infer T ? T extends Scalar ? K
    : T extends BitsOf<infer P> ? K | `${K}.${Names<P>}`
    : T extends StructOf<infer G> ? `${K}.${ValuePath<G>}`
    : T extends ArrayOf<infer E> ? (E extends Scalar ? K : never)
    : never
    : never;
}[Names<F>];

/** Paths that lead to structures, or to arrays of them. */
export type StructPath<F extends StructFields> = {
  [K in Names<F>]: Bare<F[K]> extends infer T
    ? T extends StructOf<infer G> ? K | `${K}.${StructPath<G>}`
    : T extends ArrayOf<infer E> ? (E extends StructOf ? K : never)
    : never
    : never;
}[Names<F>];

/** The type at the end of a path. */
type TypeAt<F extends StructFields, P extends string> = P extends `${infer K}.${infer R}`
  ? Bare<F[K]> extends infer T ? T extends StructOf<infer G> ? TypeAt<G, R>
    : T extends BitsOf ? "u32"
    : never
  : never
  : Bare<F[P]>;

type Wide = "u64" | "i64" | "u64a" | "ulong" | "handle";
type IsWide<T> = [Extract<T, Wide>] extends [never] ? false : true;
type Element<T> = T extends ArrayOf<infer E> ? E : T;
/** A number up to 32 bits; a bigint for what has 64 at some width. */
export type ValueAt<F extends StructFields, P extends string> =
  IsWide<Element<TypeAt<F, P>>> extends true ? bigint : number;
type Settable<F extends StructFields, P extends string> = IsWide<Element<TypeAt<F, P>>> extends true
  ? bigint | number
  : number;
/** Arrays want to know which element. */
type Which<F extends StructFields, P extends string> = TypeAt<F, P> extends ArrayOf
  ? [index: number]
  : [];
/** Values for some of the fields, by path. */
export type FieldValues<F extends StructFields> = {
  readonly [P in ValuePath<F> as Which<F, P> extends [] ? P : never]?: Settable<F, P>;
};
/** The fields of the structure at the end of a path. */
type InnerAt<F extends StructFields, P extends string> = Element<TypeAt<F, P>> extends
  StructOf<infer G> ? G : never;

/** Bytes from the start of a structure to a field, at a width. */
export function offsetOf<F extends StructFields, P extends ValuePath<F> | StructPath<F>>(
  type: StructOf<F>,
  path: P,
  width: AbiWidth,
): number {
  return placeOf(type, path, width).offset;
}

function placeOf(type: StructOf, path: string, width: AbiWidth): FieldPlace {
  const place = layoutOf(type, width).places.get(path);
  if (place) return place;
  const name = type.name || "the structure";
  throw new RangeError(`${name} has no field ${path} in its ${width}-bit form`);
}

/** An integer of a type at an offset: a number up to 32 bits, a bigint for what has or may have 64. */
export function scalarAt(
  type: Scalar,
  width: AbiWidth,
  data: DataView,
  at: number,
): number | bigint {
  switch (type) {
    case "u8":
      return data.getUint8(at);
    case "u16":
      return data.getUint16(at, true);
    case "u32":
      return data.getUint32(at, true);
    case "i8":
      return data.getInt8(at);
    case "i16":
      return data.getInt16(at, true);
    case "i32":
      return data.getInt32(at, true);
    case "i64":
      return data.getBigInt64(at, true);
    case "ulong":
    case "handle":
      if (width === 32) return BigInt(data.getUint32(at, true));
      return data.getBigUint64(at, true);
    default:
      return data.getBigUint64(at, true);
  }
}

/**
 * Bytes seen as a structure.
 *
 * Paths and values are typed: a wrong name does not compile. Fields that one width alone has
 * (`only`) throw RangeError at the other.
 */
export class View<F extends StructFields> {
  readonly type: StructOf<F>;
  readonly width: AbiWidth;
  /** The structure's own bytes: no copy. */
  readonly raw: Uint8Array;
  readonly #data: DataView;
  readonly #places: Layout["places"];

  /**
   * @param bytes where the structure stands; new zeros when left out.
   * @param at bytes from there to its start.
   * @throws RangeError when it does not fit: so reads never run off.
   */
  constructor(type: StructOf<F>, width: AbiWidth, bytes?: Uint8Array, at = 0) {
    const { size, places } = layoutOf(type, width);
    const held = bytes ?? new Uint8Array(size);
    if (at < 0 || at + size > held.length) {
      const name = type.name || "structure";
      throw new RangeError(`${name} is at ${at} to ${at + size}; expected within ${held.length}`);
    }
    this.type = type;
    this.width = width;
    this.#places = places;
    this.raw = held.subarray(at, at + size);
    this.#data = new DataView(held.buffer, held.byteOffset + at, size);
  }

  /** The value of a field; of an array, of its element `index`. */
  get<P extends ValuePath<F>>(path: P, ...[index]: Which<F, P>): ValueAt<F, P> {
    const place = this.#place(path);
    const value = this.#read(place.type as Scalar, elementAt(path, place, index));
    return (place.mask === undefined
      ? value
      : (value as number >>> place.shift!) & place.mask) as ValueAt<F, P>;
  }

  /** Writes a field; what is wider than the field loses its upper bits, as in C. */
  set<P extends ValuePath<F>>(path: P, value: Settable<F, P>, ...[index]: Which<F, P>): this {
    const place = this.#place(path);
    const at = elementAt(path, place, index);
    this.#write(place.type as Scalar, at, this.#merged(place, at, value));
    return this;
  }

  /** Writes several fields. */
  setAll(values: FieldValues<F>): this {
    for (const [path, value] of Object.entries(values) as [string, number | bigint | undefined][]) {
      if (value === undefined) continue;
      const place = this.#place(path), at = elementAt(path, place, undefined);
      this.#write(place.type as Scalar, at, this.#merged(place, at, value));
    }
    return this;
  }

  /** A structure inside; of an array, its element `index`. It shares these bytes. */
  at<P extends StructPath<F>>(path: P, ...[index]: Which<F, P>): View<InnerAt<F, P>> {
    const place = this.#place(path);
    const type = place.type as StructOf<InnerAt<F, P>>;
    return new View(type, this.width, this.raw, elementAt(path, place, index));
  }

  /** The bytes of a field, of the whole array if it is one: no copy. */
  bytes(path: ValuePath<F> | StructPath<F>): Uint8Array {
    const { offset, size, count = 1 } = this.#place(path);
    return this.raw.subarray(offset, offset + size * count);
  }

  #place(path: string): FieldPlace {
    return this.#places.get(path) ?? placeOf(this.type, path, this.width);
  }

  #merged({ type, shift = 0, mask }: FieldPlace, at: number, value: number | bigint) {
    if (mask === undefined) return value;
    const old = this.#read(type as Scalar, at) as number;
    return (old & ~(mask << shift)) | ((Number(value) & mask) << shift);
  }

  #read(type: Scalar, at: number): number | bigint {
    return scalarAt(type, this.width, this.#data, at);
  }

  #write(type: Scalar, at: number, value: number | bigint): void {
    const size = sizeOf(type, this.width);
    if (size === 8) this.#data.setBigUint64(at, BigInt(value), true);
    else {
      const low = typeof value === "bigint" ? Number(BigInt.asUintN(32, value)) : value;
      if (size === 4) this.#data.setUint32(at, low, true);
      else if (size === 2) this.#data.setUint16(at, low, true);
      else this.#data.setUint8(at, low);
    }
  }
}

function elementAt(path: string, { offset, size, count }: FieldPlace, index: number | undefined) {
  if (count === undefined) return offset;
  if (index === undefined || !(index >= 0 && index < count)) {
    throw new RangeError(`${path} has no element ${index}; expected 0 to ${count - 1}`);
  }
  return offset + index * size;
}
