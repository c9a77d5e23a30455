/**
 * Commands out of lines, and values out of their words.
 *
 * @module
 */
import { CommandError, type Context, type Filter } from "../context.ts";
import type { Call } from "./command.ts";

/** The line as a call of a command, whatever its name; null when it does not look like one. */
export function parseCall(line: string): Call | null {
  const match = line.trim().match(/^(\.?[a-z][a-z0-9]*)(?:\/([0-9]*[a-z]*))?(?:\s+([^]*))?$/);
  if (!match) return null;
  const [, name, suffix = "", rest = ""] = match;
  return { name, suffix, rest, words: wordsOf(rest) };
}

/** Words between spaces; brackets and quotes keep what they enclose together. */
export function wordsOf(text: string): string[] {
  const words: string[] = [];
  let word = "", depth = 0, quote = "";
  for (const char of text) {
    if (quote) {
      if (char === quote) quote = "";
    } else if (`"'\``.includes(char)) quote = char;
    else if ("([{".includes(char)) depth++;
    else if (")]}".includes(char)) depth--;
    if (/\s/.test(char) && depth <= 0 && !quote) {
      if (word) words.push(word);
      word = "";
    } else word += char;
  }
  return word ? [...words, word] : words;
}

/** A count: a positive whole number. */
export function count(text: string | undefined, fallback: number, what: string): number {
  if (text === undefined) return fallback;
  const number = Number(text);
  if (Number.isSafeInteger(number) && number > 0) return number;
  throw new CommandError(`${what}: expected a whole number above 0, got ${JSON.stringify(text)}`);
}

const NUMBER = /^(0x[0-9a-f_]+|0b[01_]+|0o[0-7_]+|[0-9][0-9_]*)n?$/i;
const SEGMENTED = /^([0-9a-f]{1,4}):([0-9a-f]{1,8})$/i;

/**
 * An address: a number, a register's name, a symbol, `segment:offset` in hexadecimal as in real mode,
 * sums and differences of these, or any expression of the prompt.
 */
export async function address(text: string, context: Context): Promise<bigint> {
  const simple = simpleAddress(text.trim(), context);
  if (simple !== null) return simple;
  let value: unknown;
  try {
    value = await context.evaluate(text);
  } catch (error) {
    if (error instanceof ReferenceError && /^\$?[A-Za-z_.][\w.$@]*$/.test(text.trim())) {
      throw new CommandError(`no register, symbol or variable is named ${text.trim()}`);
    }
    throw new CommandError(
      `${text} is no number, register or symbol, and as an expression it throws ` +
        (error instanceof Error ? `${error.name}: ${error.message}` : String(error)),
    );
  }
  if (typeof value === "bigint") return value;
  if (typeof value === "number" && Number.isSafeInteger(value)) return BigInt(value);
  if (typeof value === "string") {
    const found = context.domain().symbols?.address(value);
    if (found !== undefined) return found;
    throw new CommandError(`no symbol is named ${JSON.stringify(value)}`);
  }
  throw new CommandError(
    `${text} is ${value === null ? "null" : `a ${typeof value}`}, not an address ` +
      `(a bigint, a safe integer or a symbol's name)`,
  );
}

function simpleAddress(text: string, context: Context): bigint | null {
  if (NUMBER.test(text)) return number(text);
  const segmented = text.match(SEGMENTED);
  if (segmented) return BigInt(`0x${segmented[1]}`) * 16n + BigInt(`0x${segmented[2]}`);
  const sum = text.match(/^(.+)([+-])([^+-]+)$/);
  if (sum && !/[(["'`*/]/.test(text)) {
    const left = simpleAddress(sum[1].trim(), context);
    const right = simpleAddress(sum[3].trim(), context);
    if (left !== null && right !== null) return sum[2] === "+" ? left + right : left - right;
  }
  if (!/^\$?[A-Za-z_.][\w.$@]*$/.test(text)) return null;
  const name = text.replace(/^\$/, "");
  const register = context.vcpu().regs[name.toLowerCase()];
  if (typeof register === "bigint") return register;
  return context.domain().symbols?.address(text) ?? null;
}

function number(text: string): bigint {
  return BigInt(text.replaceAll("_", "").replace(/n$/i, ""));
}

/**
 * A filter from words: `cr=3 write !read` is `{ cr: 3, write: true, read: false }`; an object literal
 * stands for itself; what follows `if` is a predicate on `stop`.
 */
export async function filter(
  text: string,
  context: Context,
): Promise<{ filter: Filter; predicate?: (stop: unknown) => boolean }> {
  const [, before, condition] = text.match(/^([^]*?)(?:(?:^|\s)if\s+([^]+))?$/)!;
  const predicate = condition
    ? await context.evaluate(`(stop) => (${condition})`) as (stop: unknown) => boolean
    : undefined;
  const result: Filter = {};
  for (const word of wordsOf(before)) {
    if (word.startsWith("{")) Object.assign(result, await context.evaluate(word));
    else {
      const match = word.match(/^(!?)([A-Za-z]\w*)(?:=(.+))?$/);
      if (!match || (match[1] && match[3])) {
        throw new CommandError(
          `a filter is written name, !name, name=value or an object literal; got ${word}`,
        );
      }
      result[match[2]] = match[3] === undefined ? !match[1] : await value(match[3], context);
    }
  }
  return { filter: result, predicate };
}

async function value(text: string, context: Context): Promise<unknown> {
  if (text === "true" || text === "false") return text === "true";
  if (NUMBER.test(text)) {
    const big = number(text);
    return big <= BigInt(Number.MAX_SAFE_INTEGER) && !/n$/i.test(text) ? Number(big) : big;
  }
  if (/^[A-Za-z_]\w*$/.test(text)) return context.domain().symbols?.address(text) ?? text;
  return await context.evaluate(text);
}
