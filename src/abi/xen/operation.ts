/**
 * How hypercalls and their sub-operations are described: each public header's file lists its own, and
 * hypercalls.ts has the table of all.
 *
 * @module
 */
import type { AbiType, StructFields, StructOf, StructPath, ValuePath } from "../layout.ts";

/** Who writes: the guest (`in`), Xen (`out`), or both. */
export type Direction = "in" | "out" | "inout";

/** An array that a field of the argument points to. */
export interface GuestList {
  /** Path of the handle. */
  readonly handle: string;
  /** Path of the field that counts elements, or how many there are; undefined: the op knows by other means. */
  readonly count?: string | number;
  /** What an element is. */
  readonly of: AbiType;
  readonly direction: Direction;
}

/** Paths of a structure's fields; of an argument that is no structure there are none. */
type PathIn<T> = T extends StructOf<infer F extends StructFields> ? ValuePath<F> | StructPath<F>
  : never;

/** What may be said of a sub-operation's argument. */
interface Details<P extends string> {
  /** Fields that Xen writes and does not read. A structure's path stands for all in it. */
  readonly out?: readonly P[];
  /** Fields that Xen reads and writes. */
  readonly inout?: readonly P[];
  readonly lists?: readonly (GuestList & { readonly handle: P })[];
  /** A whole argument that is no structure: the guest writes it (`in`) unless said. */
  readonly direction?: Direction;
  /** For domain 0 and tool stacks alone: all others are refused. */
  readonly privileged?: true;
}

/** A sub-operation of a hypercall: its number, and what the argument points to. */
export interface Operation<T extends AbiType | undefined = AbiType | undefined> {
  readonly number: number;
  /** Undefined: no argument is read, NULL will do. */
  readonly arg: T;
  readonly out: readonly string[];
  readonly inout: readonly string[];
  readonly lists: readonly GuestList[];
  readonly direction: Direction;
  readonly privileged: boolean;
}

/** Sub-operations by name. */
export type Operations = Readonly<Record<string, Operation>>;

/** A sub-operation: number, type of the argument, and which fields of it Xen writes. */
export function op<const T extends AbiType | undefined = undefined>(
  number: number,
  arg?: T,
  details: Details<PathIn<T>> = {},
): Operation<T> {
  return {
    number,
    arg: arg as T,
    out: details.out ?? [],
    inout: details.inout ?? [],
    lists: details.lists ?? [],
    direction: details.direction ?? "in",
    privileged: details.privileged ?? false,
  };
}

const numbered = new WeakMap<Operations, ReadonlyMap<number, readonly [string, Operation]>>();

/** The name and the row of a number in a table of sub-operations. */
export function operationOf<T extends Operations>(
  table: T,
  number: number,
): readonly [keyof T & string, Operation] | undefined {
  let rows = numbered.get(table);
  if (!rows) {
    rows = new Map(Object.entries(table).map((row) => [row[1].number, row]));
    numbered.set(table, rows);
  }
  return rows.get(number);
}
