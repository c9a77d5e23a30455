/**
 * Commands out of lines, and values out of their words.
 *
 * @module
 */
import { brief } from "../../src/builder/errors.ts";
import { type Condition, conditionOf } from "./condition.ts";
import { exitEvents, filterFields, type Kind } from "../../src/debug/kinds.ts";
import { CommandError, type Context, type Filter, type StepHow } from "../context.ts";
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
  throw new CommandError(
    `${what}: expected a whole number above 0, got ${brief(JSON.stringify(text))}`,
  );
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
      throw new CommandError(`no register, symbol or variable is named ${brief(text.trim())}`);
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
    throw new CommandError(`no symbol is named ${brief(JSON.stringify(value))}`);
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

/** What other vCPUs do during a step: "alone" among the words makes them stand. */
export function stepHow(words: string[]): { words: string[]; how: StepHow } {
  const rest = words.filter((word) => word !== "alone");
  return { words: rest, how: rest.length < words.length ? { others: "stand" } : {} };
}

/** What a command breaks on: a kind, a filter, and a condition. */
export interface Wanted {
  readonly kind: string;
  readonly filter: Filter;
  readonly condition?: Condition;
}

/**
 * What stands behind `b`, `until` and `trace`: a kind and its filter, a vector such as `#PF`, or an
 * address; then, behind `if`, a condition on `stop`.
 *
 * A filter is written in words: `cr=3 write !read` is `{ cr: 3, write: true, read: false }`, and
 * `port=0x3f8-0x3ff` a range; an object literal stands for itself.
 */
export async function wanted({ name, rest }: Call, context: Context): Promise<Wanted> {
  const [, before, behind] = rest.match(/^([^]*?)(?:(?:^|\s)if\s+([^]+))?$/)!;
  const [first, ...words] = wordsOf(before);
  if (!first) {
    throw new CommandError(
      `${name}: a kind or an address is missing; kinds: ${exitEvents.join(" ")}`,
    );
  }
  const isKind = (exitEvents as readonly string[]).includes(first);
  const vector = VECTOR.test(first);
  const kind = isKind ? first : vector ? "exception" : "execute";
  const result: Filter = {};
  if (vector) result.vector = first;
  else if (!isKind) result.address = await placeOf(first, name, context);
  for (const word of words) {
    if (word.startsWith("{")) Object.assign(result, await context.evaluate(word));
    else if (VECTOR.test(word) && kind === "exception") result.vector = word;
    else {
      const match = word.match(/^(!?)([A-Za-z]\w*)(?:=(.+))?$/);
      if (!match || (match[1] && match[3])) {
        throw new CommandError(
          `a filter is written name, !name, name=value, name=first-last or an object literal; got ${word}`,
        );
      }
      if (kind === "execute" && match[2] !== "vcpu") {
        throw new CommandError(
          `${name}: ${first} is taken for an address, and takes no filter but vcpu=N; kinds: ${
            exitEvents.join(" ")
          }`,
        );
      }
      const [, not, key, text] = match, field = fieldOfWord(kind as Kind, key);
      if (text !== undefined) {
        const asTyped = isWordOf(kind as Kind, key, text) || isPath(kind as Kind, key, text);
        result[key] = asTyped ? text : await value(text, context);
      } else if (field && !not) result[field] = key;
      else result[key] = !not;
    }
  }
  return {
    kind,
    filter: result,
    condition: behind ? await conditionOf(behind, kind, context) : undefined,
  };
}

/** Whether a text is one of the words that a field can be. */
const isWordOf = (kind: Kind, field: string, text: string): boolean =>
  filterFields(kind)[field]?.of?.includes(text) ?? false;
/** Whether a text is a path, where a field is one. */
const isPath = (kind: Kind, field: string, text: string): boolean =>
  filterFields(kind)[field]?.is === "path" && /^[/@*]/.test(text);
/** The field that can be this word, where there is no field of that name: a hypercall's name alone, say. */
function fieldOfWord(kind: Kind, word: string): string | undefined {
  const fields = filterFields(kind);
  if (Object.hasOwn(fields, word)) return undefined;
  return Object.keys(fields).find((field) => isWordOf(kind, field, word));
}

/** An address; a word that is none may have been meant for a kind. */
async function placeOf(word: string, command: string, context: Context): Promise<bigint> {
  try {
    return await address(word, context);
  } catch (error) {
    if (!(error instanceof CommandError) || !/^[a-z-]+$/.test(word)) throw error;
    throw new CommandError(
      `${command}: ${word} is no kind of exit, and ${error.message}; kinds: ${
        exitEvents.join(" ")
      }`,
    );
  }
}

const VECTOR = /^#[A-Za-z]{2}$/;

async function value(text: string, context: Context): Promise<unknown> {
  if (text === "true" || text === "false") return text === "true";
  if (VECTOR.test(text)) return text;
  const single = plainValue(text, context);
  if (single !== undefined) return single;
  // One of the hyphens parts the first of a range from the last.
  for (let at = text.indexOf("-", 1); at > 0; at = text.indexOf("-", at + 1)) {
    const range = [text.slice(0, at), text.slice(at + 1)].map((part) => plainValue(part, context));
    if (range.every((part) => part !== undefined)) return range;
  }
  try {
    return await context.evaluate(text);
  } catch (error) {
    // A word, such as the name of an MSR.
    if (error instanceof ReferenceError && /^[A-Za-z_]\w*$/.test(text)) return text;
    throw new CommandError(
      `${text} is no number, symbol or range (first-last), and as an expression it throws ` +
        (error instanceof Error ? `${error.name}: ${error.message}` : String(error)),
    );
  }
}

/** A number or a symbol's address; undefined if it is neither. */
function plainValue(text: string, context: Context): number | bigint | undefined {
  if (!NUMBER.test(text)) return context.domain().symbols?.address(text);
  const big = number(text);
  return big <= BigInt(Number.MAX_SAFE_INTEGER) && !/n$/i.test(text) ? Number(big) : big;
}
