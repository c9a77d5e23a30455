/**
 * How values and errors look at the prompt.
 *
 * @module
 */
import { brief } from "../../src/builder/errors.ts";
import { isInterrupted } from "./interrupt.ts";

/** Characters of an error's message that are shown: it may quote whatever somebody wrote. */
export const MESSAGE_MAX = 4000;

/** Options of {@linkcode show}. */
export interface ShowOptions {
  /** Whether escape sequences for colours are written. */
  colors?: boolean;
  /** Columns to fill. */
  width?: number;
}

/**
 * A value as the prompt prints it. A bigint comes out in hexadecimal, as it is an address or a
 * register nearly always, and still is the literal that gives it back.
 *
 * @example
 * ```ts
 * if (show(4096n) !== "0x1000n") throw new Error("unexpected");
 * ```
 */
export function show(value: unknown, { colors = false, width = 100 }: ShowOptions = {}): string {
  if (typeof value === "bigint") {
    const hex = `${value < 0n ? "-" : ""}0x${(value < 0n ? -value : value).toString(16)}n`;
    return colors ? `\x1b[33m${hex}\x1b[39m` : hex;
  }
  const text = Deno.inspect(value, {
    colors,
    depth: 5,
    breakLength: width,
    strAbbreviateSize: 10_000,
  });
  const custom = typeof value !== "object" || value === null || INSPECT in value;
  if (custom) return text;
  const hex = (digits: string) => `0x${BigInt(digits).toString(16)}n`;
  return colors
    ? text.replace(COLORED, (_, digits) => `\x1b[33m${hex(digits)}\x1b[39m`)
    : text.replace(PLAIN, (_, digits) => hex(digits));
}

const INSPECT = Symbol.for("Deno.customInspect");
/** Bigints as Deno prints them within objects, with colours and without. */
// deno-lint-ignore no-control-regex
const COLORED = /\x1b\[33m(\d+)n\x1b\[39m/g;
const PLAIN = /(?<![\w"'.-])(\d+)n(?![\w"'])/g;

const ROOT = new URL("../../", import.meta.url).href;
const OWN = ["src/", "repl/", "compat/", "mod.ts"].map((path) => ROOT + path);

/**
 * An error as the prompt prints it: what it says, and where in the user's code it came from; frames
 * of the shell and of xvm itself only with `frames: "all"`.
 */
export function showError(
  error: unknown,
  { colors = false, frames = "own" }: ShowOptions & { frames?: "own" | "all" } = {},
): string {
  const red = (text: string) => colors ? `\x1b[31m${text}\x1b[39m` : text;
  if (isInterrupted(error)) return red("Interrupted");
  if (!isError(error)) return `${red("Uncaught")} ${show(error, { colors })}`;
  const lines = [`${red("Uncaught")} ${headline(error)}`];
  lines.push(...stackLines(error, frames));
  for (let cause = error.cause, depth = 0; cause !== undefined && depth < 5; depth++) {
    // What the system said, our own message has put into words.
    const told = isError(cause) && (error.message.includes(cause.message) ||
      (isOurs(error) && /\(os error \d+\)/.test(cause.message)));
    if (!told) {
      lines.push(`Caused by: ${isError(cause) ? headline(cause) : show(cause, { colors })}`);
    }
    cause = isError(cause) ? cause.cause : undefined;
  }
  if (error instanceof AggregateError) {
    for (const inner of error.errors) lines.push(`  - ${isError(inner) ? headline(inner) : inner}`);
  }
  return lines.join("\n");
}

/** Whether xvm itself threw an error: its innermost frame is ours, and no code of the user's. */
export function isOurs(error: Error): boolean {
  const first = (error.stack ?? "").split("\n").find((line) => /^\s+at /.test(line));
  const place = first?.match(/\(?(\S+?)\)?$/)?.[1] ?? "";
  return OWN.some((it) => place.startsWith(it));
}

function isError(value: unknown): value is Error {
  return value instanceof Error ||
    (typeof value === "object" && value !== null && "stack" in value && "message" in value);
}

function headline(error: Error): string {
  return error.message ? `${error.name}: ${brief(error.message, MESSAGE_MAX)}` : error.name;
}

function stackLines(error: Error, frames: "own" | "all"): string[] {
  const all = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  if (frames === "all") return all;
  // What called the prompt's code is the shell.
  const shell = all.findIndex((line) => /^\s+at eval \(<anonymous>\)$/.test(line));
  const shown: string[] = [];
  // The frame before that is of what the evaluator puts around an input.
  for (const line of shell < 0 ? all : all.slice(0, Math.max(0, shell - 1))) {
    const frame = userFrame(line);
    if (frame && frame !== shown.at(-1)) shown.push(frame);
  }
  return shown;
}

/** A frame as it is shown when it is the user's; null for others, and for the one line at the prompt. */
function userFrame(line: string): string | null {
  const [, name = "", place = ""] = line.match(/^\s+at (?:async )?(?:(.*?) \()?(.+?)\)?$/) ?? [];
  const evaluated = place.match(/^(.*), <anonymous>:(\d+):\d+$/);
  if (evaluated) {
    const [, source, row] = evaluated;
    if (name && name !== "eval") return `    at ${name} (${source}:${row})`;
    return source === "prompt" && row === "1" ? null : `    at ${source}:${row}`;
  }
  if (!place.startsWith("file:") || OWN.some((it) => place.startsWith(it))) return null;
  return `    at ${name ? `${name} (${place})` : place}`;
}
