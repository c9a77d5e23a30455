/**
 * The exit that a guest stands at, as it is saved.
 *
 * @module
 */
import { type Plain, RecordError } from "../machine/record.ts";
import { flag, record, type Shape, text, u32, whole, word } from "../machine/shape.ts";
import type { Exit } from "./exit.ts";
import { type ExitKind, exitRows } from "./exit_kinds.ts";
import type { Field } from "./fields.ts";

const wide = record({ low: u32, high: u32 });
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
}, { errorCode: whole(-0x8000_0000, 0xffff_ffff), length: whole(0, 15) });

/** What a field is in a saved exit. */
function shapeOf({ is, min = 0, max = 0, of = [] }: Field): Shape {
  switch (is) {
    case "number":
      return whole(min, max);
    case "flag":
      return flag;
    case "choice":
      return typeof of[0] === "number"
        ? whole(0, Math.max(...of as number[]))
        : word(...of as string[]);
    case "text":
      return text;
    case "physical":
      return whole(0, 2 ** 52 - 1);
    case "event":
      return event;
    default:
      return wide;
  }
}

/** What an exit of a kind has besides its kind, its length and the event it cut short. */
function membersOf(kind: ExitKind, optional: boolean): Record<string, Shape> {
  const { raw, fields } = exitRows[kind];
  const members = Object.entries(raw ?? fields).filter(([, f]) =>
    !f.made && (f.optional === true) === optional
  );
  return Object.fromEntries(members.map(([key, f]) => [key, shapeOf(f)]));
}

/** What waits to be handled, without the members that it does not have. */
export function exitRecord(exit: Exit | "unanswered"): Plain {
  return JSON.parse(JSON.stringify(exit));
}

/** Refuses what is no exit of one of these kinds. @throws {RecordError} */
export const exitShape = (kinds: readonly ExitKind[]): Shape => (value, path) => {
  if (value === "unanswered") return;
  const kind = (value as { kind?: ExitKind } | null)?.kind;
  if (kind === undefined || !kinds.includes(kind)) {
    throw new RecordError(`${path} is no exit of this host's processor: its kind is ${kind}`);
  }
  record(
    {
      kind: word(kind),
      length: whole(0, 15),
      ...membersOf(kind, false),
    },
    { vectoring: event, ...membersOf(kind, true) },
  )(value, path);
};
