/**
 * The syntax of xl.cfg, as xl.cfg(5) has it: `key = value`, one a line or parted by `;`, values that are
 * strings in either quotes, whole numbers, or lists in brackets; `#` to the end of the line; `+=` adds
 * to a string or a list; a key given again takes the place of the first.
 *
 * @module
 */

import { brief } from "../src/builder/errors.ts";

/** A string, a number, or a list of them. */
export type XlValue = string | number | XlValue[];

/** What a key was set to, and on which line. */
export interface XlEntry {
  readonly key: string;
  readonly value: XlValue;
  /** From 1. */
  readonly line: number;
}

interface Token {
  readonly text: string;
  readonly line: number;
  /** It stands behind the end of a line. */
  readonly first: boolean;
}

/** Lists in lists: no key takes more than two levels. */
const DEPTH = 16;

/** Words of the text; comments and blanks are gone. */
function tokens(text: string, path: string): Token[] {
  const found: Token[] = [];
  const token =
    /[ \t\r]+|\n|#[^\n]*|([A-Za-z_][\w-]*)|("[^"\n]*"|'[^'\n]*')|(0x[0-9a-f]+|-?\d+)(?![\w.])|(\+=|[=[\],;])/giy;
  let line = 1, first = true;
  while (token.lastIndex < text.length) {
    const at = token.lastIndex, match = token.exec(text);
    if (!match) {
      const [word] = text.slice(at).match(/^["'][^\n]*|^\S+/) ?? [text[at]];
      const why = /^["']/.test(word)
        ? `: the closing ${word[0]} is missing`
        : /^-?\d/.test(word)
        ? ": a number has digits alone, or 0x and hexadecimal ones"
        : "";
      throw new SyntaxError(`${path}:${line}: cannot read ${brief(word)}${why}`);
    }
    if (match[0] === "\n") {
      line++;
      first = true;
    } else if (match.slice(1).some((it) => it !== undefined)) {
      found.push({ text: match[0], line, first });
      first = false;
    }
  }
  return found;
}

/**
 * The assignments of a text, by key, in the order of their keys' first lines.
 *
 * @throws {SyntaxError} with the line, what was expected and what was there
 * @example
 * ```ts
 * import { parseXl } from "./xl_syntax.ts";
 *
 * const { memory, disk } = parseXl(`memory = 256 # MiB\ndisk = [ "a", "b", ]`);
 * if (memory.value !== 256 || disk.line !== 2) throw new Error("unexpected");
 * ```
 */
export function parseXl(text: string, path = "configuration"): Record<string, XlEntry> {
  const words = tokens(text, path);
  // A key may have the name of anything that other objects inherit.
  const result: Record<string, XlEntry> = Object.create(null);
  let i = 0;
  const fail = (wanted: string): never => {
    const line = words[i]?.line ?? text.trimEnd().split("\n").length;
    throw new SyntaxError(
      `${path}:${line}: expected ${wanted}, got ${brief(words[i]?.text ?? "the end of the file")}`,
    );
  };
  const list = (depth: number): XlValue[] => {
    if (depth > DEPTH) fail(`lists within lists to a depth of ${DEPTH}`);
    const values: XlValue[] = [];
    i++;
    while (words[i]?.text !== "]") {
      values.push(value(depth + 1));
      if (words[i]?.text === ",") i++;
      else if (words[i]?.text !== "]") fail(", or ]");
    }
    i++;
    return values;
  };
  const value = (depth = 1): XlValue => {
    const word = words[i]?.text ?? fail("a value");
    if (word === "[") return list(depth);
    if (/^["']/.test(word)) return words[i++].text.slice(1, -1);
    if (/^(0x|-?\d)/i.test(word)) return Number(words[i++].text);
    return fail("a string in quotes, a whole number or a list");
  };
  while (i < words.length) {
    const { text: key, line, first } = words[i];
    if (key === ";") {
      i++;
      continue;
    }
    if (!first && words[i - 1].text !== ";") fail("the end of the line or ;");
    if (!/^[A-Za-z_]/.test(key)) fail("a key");
    i++;
    const adds = words[i]?.text === "+=";
    if (!adds && words[i]?.text !== "=") fail(`= after ${brief(key)}`);
    i++;
    const given = value(), before = result[key]?.value;
    const whole = adds && before !== undefined ? sum(before, given) : given;
    if (whole === undefined) {
      throw new SyntaxError(
        `${path}:${line}: ${brief(key)}: += adds a string to a string, and a list to a list`,
      );
    }
    result[key] = { key, line, value: whole };
  }
  return result;
}

/** What += comes to; undefined if the two do not fit. */
function sum(a: XlValue, b: XlValue): XlValue | undefined {
  if (Array.isArray(a) && Array.isArray(b)) return [...a, ...b];
  if (typeof a === "string" && typeof b === "string") return a + b;
}
