/**
 * What differs between two states, as it is shown.
 *
 * @module
 */
import type { StateDifference } from "../xen/state_diff.ts";
import { counted, INSPECT, tableText } from "./values.ts";

/** Rows that are shown; all are in `differences`. */
const SHOWN = 40;

/** What differs between two states of a host; it prints as a table. */
export class StateDiff {
  /** @ignore Made by `Hypervisor.diff`. */
  constructor(
    readonly differences: readonly StateDifference[],
    /** What the two states are called. */
    readonly names: readonly [string, string],
  ) {}

  /** Nothing differs. */
  get same(): boolean {
    return this.differences.length === 0;
  }

  [INSPECT](): string {
    const { differences, names } = this;
    if (this.same) return "the states are the same";
    const rows = differences.slice(0, SHOWN).map(({ block, path, values }) => [
      block,
      path,
      ...values,
    ]);
    const more = differences.length - SHOWN;
    return tableText(["block", "field", ...names], rows) +
      (more > 0 ? `\nand ${counted(more, "difference")} more: .differences has all` : "");
  }
}
