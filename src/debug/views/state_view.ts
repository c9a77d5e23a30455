/**
 * A host's state, and what differs between two, as they are shown.
 *
 * @module
 */
import { decodePlain, encodePlain, type Plain } from "../../machine/record.ts";
import type { StateRegistry } from "../../machine/state_block.ts";
import type { StateDifference } from "../../xen/state_diff.ts";
import { counted, INSPECT, tableText } from "../values.ts";

/** The records of a host's blocks by their names. */
export type StateBlocks = Readonly<Record<string, Plain>>;

/** Copies of the records, which print as a table. */
export function blocksOf(registry: StateRegistry): StateBlocks {
  const records: Record<string, Plain> = {}, rows: [string, number, number][] = [];
  for (const [name, { version, record }] of Object.entries(registry.save())) {
    const bytes = encodePlain(record);
    records[name] = decodePlain(bytes);
    rows.push([name, version, bytes.length]);
  }
  const value = () => tableText(["block", "version", "bytes"], rows);
  return Object.defineProperty(records, INSPECT, { value });
}

/** Rows that are shown; all are in `differences`. */
const SHOWN = 40;

/** What differs between two states of a host; it prints as a table. */
export class StateDiff {
  /** All of them, in the order of the blocks. */
  readonly differences: readonly StateDifference[];
  /** What the two states are called. */
  readonly names: readonly [string, string];

  /** @ignore Made by `Hypervisor.diff`. */
  constructor(
    differences: readonly StateDifference[],
    names: readonly [string, string],
  ) {
    this.differences = differences;
    this.names = names;
  }

  /** Nothing differs. */
  get same(): boolean {
    return this.differences.length === 0;
  }

  /** @ignore */
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
