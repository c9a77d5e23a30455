/**
 * What Tab finds: commands, live shapes, and types where only they can know.
 *
 * @module
 */
import { COMMAND_NAMES } from "../commands/registry.ts";
import { exitEvents, filterFields, type Kind, kinds } from "../../src/debug/kinds.ts";
import { isFiltered } from "../../src/hvm/fields.ts";
import type { Completion } from "../editor/editor.ts";
import type { Session } from "../session.ts";
import { accessAt, inString, shapesAt } from "./shapes.ts";
import { TypeCompleter } from "./types.ts";

const types = new TypeCompleter();

/** The completions at `cursor`. */
export async function complete(
  session: Session,
  text: string,
  cursor: number,
): Promise<Completion> {
  const before = text.slice(0, cursor);
  const word = before.match(/^\s*(\.?\w*)$/)?.[1];
  if (word?.startsWith(".")) {
    return { from: cursor - word.length, items: COMMAND_NAMES.filter((it) => it.startsWith(word)) };
  }
  const place = before.match(/^\s*(b|until|trace|u|watch|pt|e|x|xp|find)(?:\/\w+)?\s+([\w.-]*)$/);
  if (place) {
    const [, command, start] = place;
    const events = ["b", "until", "trace"].includes(command)
      ? exitEvents.filter((it) => it.startsWith(start))
      : [];
    const symbols = command === "trace" || !start ? [] : symbolsFrom(session, start);
    const items = [...events, ...symbols];
    if (items.length > 0) return { from: cursor - start.length, items };
  }
  const filter = before.match(/^\s*(?:b|until|trace)\s+([\w-]+)\s+(?:\S+\s+)*?([\w.=-]*)$/);
  if (filter) {
    const [, kind, start] = filter, items = filterWords(kind).filter((it) => it.startsWith(start));
    if (items.length > 0) return { from: cursor - start.length, items };
  }
  const help = before.match(/^\s*\.help\s+(\S*)$/)?.[1];
  if (help !== undefined) {
    const items = ["tour", ...COMMAND_NAMES, ...kinds].filter((it) => it.startsWith(help));
    return { from: cursor - help.length, items: [...new Set(items)] };
  }
  const file = before.match(/^\s*\.(?:load|save)\s+(\S*)$/)?.[1];
  if (file !== undefined) return { from: cursor - file.length, items: await paths(file) };
  if (inString(before)) return await byTypes(session, text, cursor);

  const access = accessAt(text, cursor);
  if (!access) return { from: cursor, items: [] };
  const names = await shapesAt(access, session.evaluator);
  if (names === null) return await byTypes(session, text, cursor);
  const commands = word ? COMMAND_NAMES.filter((it) => it.startsWith(word)) : [];
  return { from: access.from, items: [...new Set([...commands, ...names])].sort() };
}

/** Words of a kind's filters: fields, and what those can be that are words; of the first such alone. */
function filterWords(kind: string): string[] {
  if (!(exitEvents as readonly string[]).includes(kind)) return [];
  const fields = Object.entries(filterFields(kind as Kind)).filter(([, field]) =>
    isFiltered(field)
  );
  const words = fields.map(([, { of = [] }]) => of.filter((it) => typeof it === "string"));
  return fields.flatMap(([key, { is }], n) => [
    is === "flag" ? key : `${key}=`,
    ...words[n].map((word) => `${key}=${word}`),
  ]).concat(words.find((each) => each.length > 0) ?? []);
}

function symbolsFrom(session: Session, start: string): string[] {
  try {
    return session.domain().symbols?.complete?.(start, 500) ?? [];
  } catch {
    return []; // no domain
  }
}

/** Starts what types need, so that the first Tab that needs it does not wait. */
export function warmUp(): void {
  types.start();
}

async function byTypes(session: Session, text: string, cursor: number): Promise<Completion> {
  // The line being completed is not among the inputs yet.
  const earlier = session.inputs.filter((it) => !/^\s*\./.test(it));
  return await types.complete(earlier, text, cursor);
}

async function paths(start: string): Promise<string[]> {
  const folder = start.slice(0, start.lastIndexOf("/") + 1);
  const found: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(folder || ".")) {
      const path = `${folder}${name}${isDirectory ? "/" : ""}`;
      if (path.startsWith(start)) found.push(path);
    }
  } catch {
    return [];
  }
  return found.sort();
}
