/**
 * Completion from what is there: the variables of the prompt and the shapes of live objects.
 *
 * @module
 */
import type { Evaluator } from "../evaluator/evaluator.ts";

/** The expression before a dot, and the beginning of a member's name behind it. */
export interface MemberAccess {
  /** What stands before the dot; "" for a bare name. */
  object: string;
  /** The beginning of the name. */
  start: string;
  /** Where it begins. */
  from: number;
}

const NAME = /[\p{L}\p{N}_$]*$/u;

/** What is being written just before `cursor`; null inside a string or a comment. */
export function accessAt(text: string, cursor: number): MemberAccess | null {
  const before = text.slice(0, cursor);
  if (inString(before)) return null;
  const start = before.match(NAME)![0];
  const from = cursor - start.length;
  const dot = before.slice(0, from).match(/\?\.\s*$|\.\s*$/);
  if (!dot) return { object: "", start, from };
  const end = from - dot[0].length;
  const begin = chainStart(before, end);
  if (begin === end) return null; // a number's dot, or nothing before it
  return { object: before.slice(begin, end), start, from };
}

/** Whether the text ends inside a string, a template or a line comment. */
export function inString(text: string): boolean {
  const token = /\/\/[^\n]*\n?|\/\*[^]*?(?:\*\/|$)|(["'`])((?:\\[^]|(?!\1)[^])*)(\1)?/g;
  for (const match of text.matchAll(token)) {
    const [whole, quote, , closed] = match;
    const atEnd = match.index + whole.length === text.length;
    if (!atEnd) continue;
    if (quote) return closed === undefined;
    return whole.startsWith("//") ? !whole.endsWith("\n") : !whole.endsWith("*/");
  }
  return false;
}

const CLOSERS: Record<string, string> = { ")": "(", "]": "[" };

/** Where the chain of names, calls and indexes that ends at `end` begins. */
function chainStart(text: string, end: number): number {
  let at = end;
  for (;;) {
    const name = text.slice(0, at).match(NAME)![0];
    if (name) at -= name.length;
    else if (CLOSERS[text[at - 1]]) {
      const open = openingOf(text, at - 1);
      if (open < 0) return end;
      at = open;
      if (/[\p{L}\p{N}_$)\]]$/u.test(text.slice(0, at))) continue; // what is called or indexed
      return at;
    } else return at === end ? end : at;
    const dot = text.slice(0, at).match(/\??\.$/);
    if (!dot) return at;
    at -= dot[0].length;
  }
}

function openingOf(text: string, close: number): number {
  let depth = 0;
  for (let i = close; i >= 0; i--) {
    if (")]}".includes(text[i])) depth++;
    else if ("([{".includes(text[i]) && --depth === 0) return i;
  }
  return -1;
}

/** Members of an object, its own first; symbols, indexes and private names left out. */
export function membersOf(value: unknown): string[] {
  if (value === null || value === undefined) return [];
  const names = new Set<string>();
  for (
    let it = Object(value);
    it !== null && it !== Object.prototype;
    it = Object.getPrototypeOf(it)
  ) {
    for (const name of Object.getOwnPropertyNames(it)) {
      if (/^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(name) && name !== "constructor") names.add(name);
    }
  }
  return [...names];
}

const KEYWORDS = [
  "await ",
  "const ",
  "let ",
  "function ",
  "import ",
  "for ",
  "async ",
  "new ",
  "typeof ",
];

/** The names that can stand at `access`; null where its object has no value without side effects. */
export async function shapesAt(
  access: MemberAccess,
  evaluator: Evaluator,
): Promise<string[] | null> {
  let names: string[];
  if (access.object === "") {
    names = [...evaluator.variables.names(), ...Object.getOwnPropertyNames(globalThis)];
    if (access.start) names.push(...KEYWORDS);
  } else {
    const found = await evaluator.peek(access.object);
    if (!found) return null;
    names = membersOf(found.value);
  }
  return [...new Set(names)].filter((it) => it.startsWith(access.start) && !it.startsWith("__"))
    .sort();
}
