/**
 * From what was typed to what the engine can run: types stripped, parsed, rewritten (rewrite.ts); and
 * what is unfinished told from what is wrong.
 *
 * @module
 */
import { stripTypeScriptTypes } from "node:module";
import process from "node:process";
import { type Options, parse, type Program } from "acorn";
import { addChecks, rewriteProgram, type Rewritten } from "./rewrite.ts";

/** What became of a text. */
export type Prepared =
  | { kind: "ready" } & Rewritten
  /** A beginning: more lines can make it whole. */
  | { kind: "incomplete" }
  | { kind: "wrong"; error: SyntaxError };

interface Parsed {
  js: string;
  program: Program;
}

const OPTIONS: Options = {
  ecmaVersion: "latest",
  sourceType: "script",
  allowAwaitOutsideFunction: true,
  allowImportExportEverywhere: true,
  allowHashBang: true,
};

/** Parses; throws as acorn does. What a script disposes of at its end stays at a prompt, which has none. */
function parseScript(text: string): Parsed {
  let js = text.replace(/^#!/, "//");
  for (;;) {
    try {
      return { js, program: parse(js, OPTIONS) };
    } catch (error) {
      const { message, pos } = error as SyntaxError & { pos: number };
      const using = js.slice(pos).match(/^(await\s+)?using\b/);
      if (!using || !/^Using declaration cannot appear in the top level/.test(message)) throw error;
      const before = using[1]?.replace(/\S/g, " ") ?? "";
      js = `${js.slice(0, pos)}${before}const${js.slice(pos + using[0].length)}`;
    }
  }
}

/** Makes `text`, TypeScript or JavaScript, ready for the engine. */
export function prepare(text: string): Prepared {
  // Braces are an object where they can be, and no block.
  const object = /^\s*\{/.test(text) && !/;\s*$/.test(text);
  const parsed = (object ? tryParse(`(${text}\n)`) : null) ?? tryParse(text);
  if (parsed) return { kind: "ready", ...rewriteProgram(parsed.js, parsed.program) };
  const error = explain(text);
  return error ? { kind: "wrong", error } : { kind: "incomplete" };
}

/** The program that `text` is; null where it is none. */
export function programOf(text: string): Program | null {
  return tryParse(text)?.program ?? null;
}

/** A single expression with its types stripped; null where it is none. */
export function plainExpression(text: string): string | null {
  const parsed = tryParse(`(${text}\n)`);
  const only = parsed?.program.body.length === 1 && parsed.program.body[0];
  return parsed && only && only.type === "ExpressionStatement" ? parsed.js : null;
}

/** Text that runs as it stands, with checks for ctrl-C in it where it can be parsed. */
export function checked(js: string): string {
  try {
    const program = parse(js, { ecmaVersion: "latest", sourceType: "script" });
    return addChecks(js, program);
  } catch {
    return js; // the engine says what is wrong with it
  }
}

/** Whether `text` can be run as it stands. */
export function isValid(text: string): boolean {
  return tryParse(text) !== null;
}

function tryParse(text: string): Parsed | null {
  const variants = [
    () => text,
    () => stripTypeScriptTypes(text, { mode: "strip" }),
    () => stripTypeScriptTypes(text, { mode: "transform" }),
  ];
  for (const variant of variants) {
    try {
      const js = quietly(variant);
      // The transformer drops an unfinished comment instead of refusing it.
      if (js.trim() === "" && text.includes("/*") && !text.includes("*/")) return null;
      return parseScript(js);
    } catch {
      // the next variant may understand it
    }
  }
  return null;
}

/** `stripTypeScriptTypes` warns once that it is experimental; nobody at a prompt can act on that. */
function quietly<T>(fn: () => T): T {
  const emit = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return fn();
  } finally {
    process.emitWarning = emit;
  }
}

/** The error that makes `text` wrong, or null when it only lacks an end. */
function explain(text: string): SyntaxError | null {
  const atEnd = (js: string) => {
    try {
      parseScript(js);
      return false;
    } catch (error) {
      const { pos, message } = error as SyntaxError & { pos: number };
      if (/Unterminated (template|comment)/.test(message)) return true;
      return pos >= js.trimEnd().length && !/Unterminated/.test(message);
    }
  };
  if (atEnd(text)) return null;
  let js = text;
  try {
    js = quietly(() => stripTypeScriptTypes(text, { mode: "strip" }));
    if (atEnd(js)) return null;
  } catch {
    // what it says of the place is worse than what the transformer says
  }
  try {
    quietly(() => stripTypeScriptTypes(text, { mode: "transform" }));
  } catch (error) {
    return fromTransformer(error as Error, text);
  }
  try {
    parseScript(js);
    return new SyntaxError("cannot be parsed");
  } catch (error) {
    const { message, loc } = error as SyntaxError & { loc: { line: number; column: number } };
    return located(message.replace(/ \(\d+:\d+\)$/, ""), text, loc.line, loc.column + 1);
  }
}

function fromTransformer(error: Error, text: string): SyntaxError | null {
  const [first] = error.message.split("\n");
  const at = error.message.match(/:(\d+):(\d+)\s*$/);
  const line = Number(at?.[1] ?? 1), column = Number(at?.[2] ?? 1);
  const lines = text.trimEnd().split("\n");
  const past = line > lines.length || (line === lines.length && column > lines[line - 1].length);
  if (
    !/Unterminated string/.test(first) &&
    (past || /got '<eof>'|Unexpected eof|token `<eof>`|Unterminated template/.test(first))
  ) {
    return null;
  }
  const message = first.replace(/^SyntaxError: /, "").replace(/ \(\d+:\d+\)$/, "");
  return located(message, text, line, column);
}

/** An error at a place of `text`, both counted from 1; the line is shown, with a mark below the place. */
function located(message: string, text: string, line: number, column: number): SyntaxError {
  const shown = text.split("\n")[line - 1] ?? "";
  const from = Math.max(0, column - 60);
  const mark = shown.slice(from, column - 1).replace(/[^\t]/g, " ");
  return new SyntaxError(
    `${message} (line ${line}, column ${column})\n  ${shown.slice(from, from + 100)}\n  ${mark}^`,
  );
}
