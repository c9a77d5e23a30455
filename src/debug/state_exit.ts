/**
 * The exit that a guest stands at, as it is saved.
 *
 * @module
 */
import { type Plain, RecordError } from "../devices/record.ts";
import type { Exit, ExitKind } from "../hvm/exit.ts";
import { flag, record, type Shape, text, u32, whole, word } from "./shape.ts";

const wide = record({ low: u32, high: u32 });
const signed = whole(-0x8000_0000, 0xffff_ffff);
const event = record({
  type: word(
    "external-interrupt",
    "nmi",
    "exception",
    "software-interrupt",
    "privileged-software-exception",
    "software-exception",
  ),
  vector: whole(0, 255),
}, { errorCode: signed, length: whole(0, 15) });
const physical = whole(0, 2 ** 52 - 1), register = whole(0, 15);

/** What an exit of a kind has besides its kind, its length and the event it cut short. */
const FIELDS: Partial<Record<ExitKind, Record<string, Shape>>> = {
  cpuid: { leaf: signed, subleaf: signed },
  msr: { write: flag, msr: u32, value: wide },
  io: {
    write: flag,
    port: whole(0, 0xffff),
    size: whole(1, 4),
    string: flag,
    rep: flag,
    value: u32,
  },
  "nested-page-fault": {
    gpa: physical,
    read: flag,
    write: flag,
    fetch: flag,
    walk: flag,
    rights: whole(0, 7),
    misconfigured: flag,
  },
  "shadow-write": { gpa: physical, linear: wide },
  cr: {
    cr: whole(0, 8),
    write: flag,
    access: word("mov", "clts", "lmsw"),
    gpr: register,
    value: wide,
  },
  dr: { dr: whole(0, 7), write: flag, gpr: register },
  exception: { event, qualification: wide },
  "external-interrupt": { vector: whole(-1, 255) },
  "task-switch": { selector: whole(0, 0xffff), source: word("call", "iret", "jmp", "gate") },
  "software-interrupt": { vector: whole(0, 255) },
  invlpg: { linear: wide },
  "descriptor-table": {
    instruction: word("sgdt", "sidt", "lgdt", "lidt", "sldt", "str", "lldt", "ltr"),
  },
  rdtsc: { aux: flag },
  mwait: { armed: flag },
  "virtualization-instruction": { instruction: text },
  "entry-failure": { what: text, check: text, text, code: signed },
  stopped: { why: word("unanswered") },
  unknown: { reason: signed },
};
const OPTIONAL: Partial<Record<ExitKind, Record<string, Shape>>> = {
  io: { address: wide },
  "nested-page-fault": { linear: wide },
};

/** An exit without the members that it does not have. */
export function exitRecord(exit: Exit): Plain {
  return JSON.parse(JSON.stringify(exit));
}

/** Refuses what is no exit of one of these kinds. @throws {RecordError} */
export const exitShape = (kinds: readonly ExitKind[]): Shape => (value, path) => {
  const kind = (value as { kind?: ExitKind } | null)?.kind;
  if (kind === undefined || !(kind === "stopped" || kinds.includes(kind))) {
    throw new RecordError(`${path} is no exit of this host's processor: its kind is ${kind}`);
  }
  record(
    { kind: word(kind), length: whole(0, 15), ...FIELDS[kind] },
    { vectoring: event, ...OPTIONAL[kind] },
  )(value, path);
};
