/**
 * Exits that were: the last of them, and how many there were of each kind.
 *
 * @module
 */
import type { Monitor } from "../../xen/monitor.ts";
import { eventText, fieldsOf } from "../kinds.ts";
import type { Subject } from "../subject.ts";
import { grouped, INSPECT, tableText } from "../values.ts";

const SHOWN_EXITS = 20;

/** An exit that was. */
export interface PastExit {
  /** Its kind. */
  readonly kind: string;
  /** Instructions the host had retired. */
  readonly count: number;
  /** What happened, in one line. */
  readonly text: string;
}

/** Exits, the newest last; prints one a line. */
export class ExitHistory extends Array<PastExit> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** @ignore */
  [INSPECT](): string {
    const last = this.slice(-SHOWN_EXITS).map(({ count, text }) =>
      `${grouped(count).padStart(15)}  ${text}`
    );
    if (this.length > SHOWN_EXITS) last.unshift(`the last ${SHOWN_EXITS} of ${this.length} exits:`);
    return last.join("\n") || "no exits noted";
  }
}

/** What a monitor has noted. */
export const historyOf = (subject: Subject, { recent }: Monitor): ExitHistory =>
  ExitHistory.from(recent, ({ exit, count }) => ({
    kind: exit.kind,
    count,
    text: eventText(exit.kind, fieldsOf(exit), subject),
  })) as ExitHistory;

/** How many exits of each kind there were; prints as a table. */
export function exitCounts({ inner: { exits, count } }: Subject): Record<string, number> {
  const copy = { ...exits };
  return Object.defineProperty(copy, INSPECT, { value: () => exitsText(copy, count) });
}

function exitsText(exits: Record<string, number>, count: number): string {
  const rows = Object.entries(exits).sort((a, b) => b[1] - a[1]);
  if (rows.length === 0) return "no exits";
  const total = rows.reduce((sum, [, n]) => sum + n, 0);
  const table = rows.map(([kind, n]) => [
    kind,
    n,
    `${(100 * n / total).toFixed(1)} %`.padStart(7),
    grouped(Math.round(count / n)),
  ]);
  return tableText(["exit", "count", "share", "every … instructions"], [...table, [
    "all",
    total,
    "",
    "",
  ]]);
}
