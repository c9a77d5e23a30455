/**
 * Hypercalls that a domain has made, counted by name, operation and error.
 *
 * @module
 */
import { errnoName } from "../../abi/xen/errno.ts";
import { hypercallOf } from "../../abi/xen/hypercalls.ts";
import { operationOf } from "../../abi/xen/operation.ts";
import type { CallCount } from "../../xen/call_counts.ts";
import type { Subject } from "../subject.ts";
import { INSPECT, tableText } from "../values.ts";

/** Calls of one name and operation. */
export interface HypercallCount {
  /** The hypercall's name; "unknown" of numbers that nobody has. */
  readonly name: string;
  /** The operation's name, of calls that have such; "unknown" of those that do not exist. */
  readonly sub?: string;
  /** How many were made. */
  readonly count: number;
  /** How many of them failed, by the errno's name. */
  readonly errors: Readonly<Record<string, number>>;
}

/** Calls by name and operation, the most frequent first; prints as a table. */
export class HypercallCounts extends Array<HypercallCount> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** All of them together. */
  get total(): number {
    return this.reduce((sum, { count }) => sum + count, 0);
  }
  /** @ignore */
  [INSPECT](): string {
    if (this.length === 0) return "no hypercalls";
    const rows = this.map(({ name, sub = "", count, errors }) => [
      name,
      sub,
      count,
      Object.entries(errors).map(([error, n]) => `${error} ${n}`).join(", "),
    ]);
    return tableText(["hypercall", "operation", "count", "errors"], [
      ...rows,
      ["all", "", this.total, ""],
    ]);
  }
}

/** @throws {Error} for a domain that does not know Xen */
export function hypercallCounts(subject: Subject): HypercallCounts {
  const { inner: { xen, name } } = subject;
  if (!xen) subject.mustLive("hypercalls");
  if (!xen) throw new Error(`hypercalls: domain ${name} knows nothing of Xen (xen: true)`);
  const counts = xen.calls.all.map(countOf).sort((a, b) => b.count - a.count);
  return HypercallCounts.from(counts) as HypercallCounts;
}

function countOf({ number, sub, count, errors }: CallCount): HypercallCount {
  const [name, row] = hypercallOf(number) ?? ["unknown"];
  const operation = row?.operations &&
    { sub: operationOf(row.operations, sub)?.[0] ?? "unknown" };
  const failed = [...errors].map(([result, n]) => [errnoName(result) ?? String(result), n]);
  return { name, ...operation, count, errors: Object.fromEntries(failed) };
}
