/** Runs many cases through oracle and subject, and sorts what differs. */
import type { Case, Mode, Result, Subject } from "./state.ts";
import { BATCH, type Oracle } from "./host.ts";
import { type Allowance, allowances } from "./exceptions.ts";
import { compare, type Difference } from "./compare.ts";
import { generate } from "./generate.ts";
import { identify, isX87 } from "./instruction.ts";
import type { Kind } from "./opcodes.ts";
import { detected, splitsLock } from "./split_lock.ts";

/** What to run. */
export interface Campaign {
  subject: Subject;
  oracle: Oracle;
  /** Cases in order. */
  cases: Iterable<Case>;
  /** Stops after so many differing cases; never if absent. */
  stopAfter?: number;
  /** Called for each differing case. */
  onDifference?: (failure: Failure) => void;
}

/** A case that differs. */
export interface Failure {
  test: Case;
  differences: Difference[];
  expected: Result;
  actual?: Result;
}

/** What a campaign found. */
export interface Summary {
  cases: number;
  /** Cases that ended in an exception on the host. */
  faulted: number;
  failed: number;
  /** Failed cases by opcode and fields. */
  groups: Map<string, number>;
  allowed: Allowance[];
  seconds: number;
}

/** Generated cases `from` to `from + count - 1` of a seed, less those that stop this host's stub. */
export function* generated(
  seed: number,
  mode: Mode,
  from: number,
  count: number,
  kinds?: readonly Kind[],
): Generator<Case> {
  const options = { seed, mode, kinds };
  for (let index = from; index < from + count; index++) {
    const test = generate(options, index);
    if (!detected || !splitsLock(test)) yield test;
  }
}

/** Runs a campaign. The subject works while the processor runs the next batch. */
export function run(campaign: Campaign): Summary {
  const { oracle, subject } = campaign, started = performance.now();
  const summary: Summary = {
    cases: 0,
    faulted: 0,
    failed: 0,
    groups: new Map(),
    allowed: allowances(oracle.vendor),
    seconds: 0,
  };
  const limit = campaign.stopAfter ?? Infinity;
  for (const batch of batches(campaign.cases)) {
    oracle.submit(batch);
    const actual = batch.map((test) => attempt(subject, test));
    const expected = oracle.collect();
    for (let n = 0; n < batch.length; n++) {
      judge(campaign, summary, batch[n], expected[n], actual[n]);
      if (summary.failed >= limit) break;
    }
    if (summary.failed >= limit) break;
  }
  summary.seconds = (performance.now() - started) / 1000;
  return summary;
}

function* batches(cases: Iterable<Case>): Generator<Case[]> {
  let batch: Case[] = [];
  for (const test of cases) {
    if (batch.push(test) < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length) yield batch;
}

/** The subject's result, or the bug it threw. */
function attempt(subject: Subject, test: Case): Result | Error {
  try {
    return subject.run(test);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

function judge(
  campaign: Campaign,
  summary: Summary,
  test: Case,
  expected: Result,
  actual: Result | Error,
): void {
  summary.cases++;
  if (expected.exception) summary.faulted++;
  const failed = actual instanceof Error;
  const differences = failed
    ? [{
      field: "subject",
      before: "",
      expected: "a result",
      actual: `${actual.name}: ${actual.message}`,
    }]
    : compare(test, expected, actual, summary.allowed);
  if (!differences.length) return;
  summary.failed++;
  const key = `${opcodeName(test)}  ${differences.map((d) => d.field).join(" ")}`;
  summary.groups.set(key, (summary.groups.get(key) ?? 0) + 1);
  campaign.onDifference?.({ test, differences, expected, actual: failed ? undefined : actual });
}

/** Opcode, and what of ModRM belongs to it, as a name for groups of failures. */
export function opcodeName(test: Case): string {
  const i = identify(test);
  const hex = (n: number) => n.toString(16).padStart(2, "0");
  const name = (i.opcode > 0xff ? "0f " : "") + hex(i.opcode & 0xff);
  if (isX87(i) && i.mod === 3) return `${name} ${hex(i.modrm)}`;
  const groups = [0x80, 0x81, 0x82, 0x83, 0x8f, 0xc0, 0xc1, 0xc6, 0xc7, 0xd0, 0xd1, 0xd2, 0xd3]
    .concat([0xf6, 0xf7, 0xfe, 0xff, 0x100, 0x101, 0x171, 0x172, 0x173, 0x1ae, 0x1ba, 0x1c7]);
  const grouped = isX87(i) || groups.includes(i.opcode);
  const where = i.mod === 3 ? " reg" : grouped ? " mem" : "";
  return grouped ? `${name} /${i.reg}${where}` : name;
}
