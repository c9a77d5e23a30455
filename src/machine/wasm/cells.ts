/**
 * Places in a memory: an area is filled by one list of cells, one behind the other, each aligned to
 * its size. So no two overlap, and a name that is in no list does not type-check.
 */

declare const BYTES: unique symbol;
/** Byte address of a cell; its type knows how many bytes the cell has. */
export type Cell<Bytes extends number = number> = number & { readonly [BYTES]?: Bytes };

/** Names and sizes in bytes. Up to 8 bytes hold a value, more hold several. */
export type Sizes = Readonly<Record<string, number>>;
export type Cells<S extends Sizes> = { readonly [Name in keyof S]: Cell<S[Name]> };

/** Bytes [start, end) of a memory. */
export interface Area {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** A cell with its name. */
export interface CellField {
  readonly name: string;
  /** Byte address. */
  readonly at: number;
  /** Bytes. */
  readonly width: number;
}

interface List {
  readonly fields: readonly CellField[];
  readonly areas: Map<string, Area>;
}
const lists = new WeakMap<object, List>();
const filled = new WeakSet<Area>();

/**
 * Fills an area with cells, in the order given.
 *
 * @throws if the area has been filled before, or is too small.
 */
export function cells<const S extends Sizes>(area: Area, sizes: S): Cells<S> {
  if (filled.has(area)) throw new Error(`${area.name}: other cells lie there already`);
  filled.add(area);
  const fields: CellField[] = [];
  let at = area.start;
  for (const [name, width] of Object.entries(sizes)) {
    const alignment = Math.min(width, 8);
    at = Math.ceil(at / alignment) * alignment;
    fields.push({ name, at, width });
    at += width;
  }
  if (at > area.end) {
    throw new Error(
      `${area.name}: its cells take ${at - area.start} bytes, it has ${area.end - area.start}`,
    );
  }
  const out = Object.fromEntries(fields.map((f) => [f.name, f.at])) as Cells<S>;
  lists.set(out, { fields, areas: new Map() });
  return out;
}

function listOf(of: Cells<Sizes>): List {
  const list = lists.get(of);
  if (!list) throw new Error("these cells were not made by cells()");
  return list;
}

/** Names, places and widths of a list, in order. */
export const fieldsOf = (list: Cells<Sizes>): readonly CellField[] => listOf(list).fields;

/** One cell of a list. */
function fieldOf<S extends Sizes>(list: Cells<S>, name: keyof S & string): CellField {
  const field = listOf(list).fields.find((f) => f.name === name);
  if (!field) throw new Error(`no cell named ${name}`);
  return field;
}

/** Some cells of a list, in the order given. */
export const fieldsNamed = <S extends Sizes>(
  list: Cells<S>,
  names: readonly (keyof S & string)[],
): readonly CellField[] => names.map((name) => fieldOf(list, name));

/** A cell as an area that has cells of its own: always the same one. */
export function areaOf<S extends Sizes>(list: Cells<S>, name: keyof S & string): Area {
  const { areas } = listOf(list), { at, width } = fieldOf(list, name);
  let area = areas.get(name);
  if (!area) areas.set(name, area = { name, start: at, end: at + width });
  return area;
}

/** The bytes from the start of one cell to the end of another. */
export function span<S extends Sizes>(
  list: Cells<S>,
  first: keyof S & string,
  last: keyof S & string,
): { readonly start: number; readonly size: number } {
  const { at: start } = fieldOf(list, first), { at, width } = fieldOf(list, last);
  return { start, size: at + width - start };
}

/** Cells of one size. */
export const each = <Name extends string, Bytes extends number>(
  names: readonly Name[],
  bytes: Bytes,
): Record<Name, Bytes> => Object.fromEntries(names.map((n) => [n, bytes])) as Record<Name, Bytes>;

/** The same, named by a word and numbers. */
export const numbered = <
  Word extends string,
  const Numbers extends readonly number[],
  Bytes extends number,
>(word: Word, numbers: Numbers, bytes: Bytes): Record<`${Word}${Numbers[number]}`, Bytes> =>
  each(numbers.map((n) => `${word}${n}` as const), bytes);
