/**
 * Hypercalls in words: the name, the operation and the arguments of a call, by the ABI's tables, out of
 * the caller's registers and memory. For whoever looks on: nothing is decoded where nobody does.
 *
 * @module
 */
import {
  type AbiType,
  type AbiWidth,
  type ArrayOf,
  fieldsOf,
  scalarAt,
  sizeOf,
  type StructOf,
} from "../abi/layout.ts";
import {
  argumentsIn,
  type Hypercall,
  HYPERCALL_REGISTERS,
  type HypercallArgument,
  type HypercallName,
  hypercallOf,
} from "../abi/xen/hypercalls.ts";
import { type Operation, operationOf } from "../abi/xen/operation.ts";
import { MULTICALL_ENTRY } from "../abi/xen/xen.ts";
import { errnoName } from "../abi/xen/errno.ts";

/** Elements of a list that are decoded; bytes of text. */
const MOST = 16, MOST_TEXT = 64;

/** A call as its registers have it. */
export interface RawCall {
  readonly number: number;
  readonly width: AbiWidth;
  /** Registers of the arguments, first to last. */
  readonly registers: readonly bigint[];
}
/** Bytes of the caller's memory; undefined where it cannot be read. */
export type ReadGuest = (linear: bigint, length: number) => Uint8Array | undefined;

/** What a call says. */
export interface DecodedCall {
  readonly number: number;
  /** Undefined for a number that nobody has. */
  readonly name?: HypercallName;
  /** The operation's name, of calls that have such. */
  readonly sub?: string;
  readonly width: AbiWidth;
  /** By name; what lies in memory that cannot be read is undefined. */
  readonly arguments: Readonly<Record<string, unknown>>;
  /** Of a multicall, the calls in it; once it was made with their results. */
  readonly calls?: readonly DecodedCall[];
  readonly result?: number;
  /** The errno's name, of a result that is one. */
  readonly error?: string;
  /** The rule that refused it, in words. */
  readonly why?: string;
}

/** Registers of the arguments by width. */
export const argumentRegisters = (width: AbiWidth): readonly string[] => HYPERCALL_REGISTERS[width];

/**
 * Decodes a call.
 *
 * @param result what it gave; undefined before it is made: fields that Xen writes are left out then
 */
export function decodeCall(raw: RawCall, read: ReadGuest, result?: number): DecodedCall {
  const { number, width, registers } = raw, found = hypercallOf(number);
  const after = resultFields(result);
  if (!found) return { number, width, arguments: {}, ...after };
  const [name, row] = found, values = argumentsIn(row, width, registers);
  const command = row.operations
    ? Number(BigInt.asIntN(32, values[0])) & (row.operationMask ?? -1)
    : 0;
  const operation = row.operations && operationOf(row.operations, command);
  const call = new Arguments(row, width, values, operation?.[1], read, result !== undefined);
  const sub = row.operations && { sub: operation?.[0] ?? String(command) };
  const calls = name === "multicall" && { calls: call.unfolded(result) };
  return { number, name, ...sub, width, arguments: call.all(), ...calls, ...after };
}
const resultFields = (result?: number) =>
  result === undefined ? undefined : { result, error: result < 0 ? errnoName(result) : undefined };

class Arguments {
  constructor(
    readonly row: Hypercall,
    readonly width: AbiWidth,
    readonly values: readonly bigint[],
    readonly operation: Operation | undefined,
    readonly read: ReadGuest,
    /** The call is made: what Xen wrote is there. */
    readonly made: boolean,
  ) {}

  all(): Record<string, unknown> {
    const result: Record<string, unknown> = {}, { row, width, values } = this;
    row.args[width].forEach((argument, n) => {
      if (n === 0 && row.operations) return;
      const value = this.#value(argument, values[n]);
      // The one structure that an operation is given: its fields are the arguments.
      if (argument.to === "operation" && isFields(value) && !argument.count) {
        Object.assign(result, value);
      } else if (argument.to !== "operation" || this.operation?.arg) result[argument.name] = value;
    });
    return result;
  }

  #value({ type, to, count, direction }: HypercallArgument, value: bigint): unknown {
    if (type !== "handle") return small(value);
    const of = to === "operation" ? this.operation?.arg : to;
    if (!of || value === 0n) return value;
    if (!this.made && (to === "operation" ? this.operation?.direction : direction) === "out") {
      return value;
    }
    if (count === undefined) return this.#at(of, value);
    return this.#list(of, value, this.#count(count));
  }
  #count(name: string): number {
    const { row, width, values } = this;
    return Number(values[row.args[width].findIndex((each) => each.name === name)] ?? 0n);
  }
  #list(of: AbiType, from: bigint, count: number): unknown[] {
    const list: unknown[] = [], size = BigInt(sizeOf(of, this.width));
    for (let n = 0; n < Math.min(count, MOST); n++) {
      list.push(this.#at(of, from + BigInt(n) * size));
    }
    if (count > MOST) list.push(`and ${count - MOST} more`);
    return list;
  }
  /** What is at a place; undefined where it cannot be read. */
  #at(type: AbiType, address: bigint): unknown {
    const bytes = this.read(BigInt.asUintN(this.width, address), sizeOf(type, this.width));
    if (!bytes) return undefined;
    const value = this.#decode(
      type,
      new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
      0,
      "",
    );
    if (!isFields(value)) return value;
    for (const { handle, count, of, direction } of this.operation?.lists ?? []) {
      const from = value[handle], length = typeof count === "string" ? value[count] : count;
      if (typeof from !== "bigint" || from === 0n || length === undefined) continue;
      if (direction === "out" && !this.made) continue;
      value[handle] = this.#list(of, from, Number(length));
    }
    return value;
  }

  #decode(type: AbiType, data: DataView, at: number, path: string): unknown {
    if (typeof type === "string") return scalarAt(type, this.width, data, at);
    switch (type.kind) {
      case "by width":
        return type.of[this.width] && this.#decode(type.of[this.width]!, data, at, path);
      case "bits":
        return scalarAt(type.unit, this.width, data, at);
      case "array":
        return this.#array(type, data, at);
    }
    return this.#fields(type, data, at, path);
  }
  #fields(type: StructOf, data: DataView, at: number, path: string): Record<string, unknown> {
    const fields: Record<string, unknown> = {}, { out = [] } = this.operation ?? {};
    for (const { name, type: of, offset } of fieldsOf(type, this.width)) {
      const inner = path + name;
      if (/^_?pad/.test(name) || (!this.made && out.includes(inner))) continue;
      fields[name] = this.#decode(of, data, at + offset, `${inner}.`);
    }
    return fields;
  }
  #array(type: ArrayOf, data: DataView, at: number): unknown {
    const { of, count } = type, length = typeof count === "number" ? count : count[this.width];
    if (of === "u8" || of === "i8") {
      const bytes = new Uint8Array(data.buffer, data.byteOffset + at, Math.min(length, MOST_TEXT));
      const end = bytes.indexOf(0);
      return String.fromCharCode(...bytes.subarray(0, end < 0 ? bytes.length : end));
    }
    const size = sizeOf(of, this.width);
    return Array.from(
      { length: Math.min(length, MOST) },
      (_, n) => this.#decode(of, data, at + n * size, ""),
    );
  }

  /** The calls of a multicall. */
  unfolded(result: number | undefined): readonly DecodedCall[] {
    const { values: [from], width, read } = this, count = this.#count("nr_calls");
    const size = sizeOf(MULTICALL_ENTRY, width), word = width / 8, calls: DecodedCall[] = [];
    for (let n = 0; n < Math.min(count, MOST); n++) {
      const bytes = read(from + BigInt(n * size), size);
      if (!bytes) break;
      const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      const words = Array.from(
        { length: size / word },
        (_, n) => BigInt(scalarAt("ulong", width, data, n * word)),
      );
      // op, result, args[6].
      const [number, given, ...registers] = words;
      const made = result === undefined ? undefined : Number(BigInt.asIntN(width, given));
      calls.push(
        decodeCall({ number: Number(BigInt.asUintN(32, number)), width, registers }, read, made),
      );
    }
    return calls;
  }
}

const isFields = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
/** A number as long as that is exact. */
const small = (value: bigint): number | bigint =>
  value >= -(2n ** 31n) && value < 2n ** 32n ? Number(value) : value;
