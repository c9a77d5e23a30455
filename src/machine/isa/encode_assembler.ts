/**
 * A small two-pass assembler in Intel syntax over the encoding table, for the built-in guest,
 * tests and generators.
 * @module
 */
import {
  AssembleError,
  Cursor,
  expression,
  type Lookup,
  type Token,
  tokenize,
  type Value,
} from "./encode_expression.ts";
import { match } from "./encode_match.ts";
import { parseOperand, type WrittenOperand } from "./encode_operands.ts";

export { AssembleError };

/** Settings of {@linkcode assemble}. */
export interface AssembleOptions {
  /** Width of the code until the first `bits` directive; default 32. */
  readonly mode?: 16 | 32 | 64;
  /** Address of the first byte; default 0. `org` changes it. */
  readonly origin?: number | bigint;
  /** Names known beforehand. */
  readonly symbols?: Readonly<Record<string, number | bigint>>;
}

/** Where a source line went. */
export interface AssembledLine {
  /** From 1. */
  readonly line: number;
  readonly address: bigint;
  readonly length: number;
}

/** Result of {@linkcode assemble}. */
export interface Assembled {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly origin: bigint;
  /** Labels and `equ` names with their values. */
  readonly symbols: ReadonlyMap<string, bigint>;
  readonly lines: readonly AssembledLine[];
}

interface Line {
  readonly number: number;
  readonly tokens: Token[];
}

/** State that lives through one pass. */
interface Pass {
  readonly options: AssembleOptions;
  readonly old: ReadonlyMap<string, Value>;
  readonly symbols: Map<string, Value>;
  readonly errors: string[];
  /** The last pass: unknown names are errors. */
  readonly final: boolean;
  /** Ordinals of branches that did not reach in a former pass. */
  readonly near: Set<number>;
  readonly lines: AssembledLine[];
  out: number[];
  mode: 16 | 32 | 64;
  origin: bigint;
  originSet: boolean;
  scope: string;
  grew: boolean;
  /** Instructions so far. */
  instructions: number;
}

const MAX_PASSES = 40;

/**
 * Assembles Intel-syntax text: instructions of the encoding table, labels (`.local` ones belong
 * to the label before), `db dw dd dq`, `org`, `align n`, `times n`, `bits 16/32/64`, `equ`, `$`,
 * `$$`, far pointers `0x8:label`. Comments begin with `;`.
 * Throws an AssembleError that lists the lines at fault.
 */
export function assemble(text: string, options: AssembleOptions = {}): Assembled {
  const errors: string[] = [];
  const lines: Line[] = [];
  text.split("\n").forEach((source, i) => {
    try {
      const tokens = tokenize(withoutComment(source));
      if (tokens.length > 0) lines.push({ number: i + 1, tokens });
    } catch (error) {
      errors.push(report(i + 1, error));
    }
  });
  fail(errors);
  const near = new Set<number>();
  let symbols = new Map<string, Value>();
  for (let n = 0; n < MAX_PASSES; n++) {
    const pass = run(lines, options, symbols, near, false);
    const settled = n > 0 && !pass.grew && sameSymbols(symbols, pass.symbols);
    symbols = pass.symbols;
    if (settled) break;
  }
  const last = run(lines, options, symbols, near, true);
  fail(last.errors);
  if (!sameSymbols(symbols, last.symbols)) {
    throw new AssembleError("the labels do not settle: an equ or times depends on its own size");
  }
  return {
    bytes: new Uint8Array(last.out),
    origin: last.origin,
    symbols: new Map([...last.symbols].map(([name, v]) => [name, v.value])),
    lines: last.lines,
  };
}

function fail(errors: string[]): void {
  if (errors.length === 0) return;
  const shown = errors.slice(0, 20);
  if (errors.length > 20) shown.push(`... and ${errors.length - 20} more`);
  throw new AssembleError(shown.join("\n"));
}

function report(line: number, error: unknown): string {
  if (error instanceof AssembleError) return `line ${line}: ${error.message}`;
  throw error;
}

/** The line without its comment; semicolons in strings stay. */
function withoutComment(line: string): string {
  let quote = "";
  for (let i = 0; i < line.length; i++) {
    const c = line[i];
    if (quote !== "") {
      if (c === "\\") i++;
      else if (c === quote) quote = "";
    } else if (c === '"' || c === "'" || c === "`") quote = c;
    else if (c === ";") return line.slice(0, i);
  }
  return line;
}

function sameSymbols(a: ReadonlyMap<string, Value>, b: ReadonlyMap<string, Value>): boolean {
  if (a.size !== b.size) return false;
  for (const [name, v] of a) if (b.get(name)?.value !== v.value) return false;
  return true;
}

function run(
  lines: readonly Line[],
  options: AssembleOptions,
  old: ReadonlyMap<string, Value>,
  near: Set<number>,
  final: boolean,
): Pass {
  const p: Pass = {
    options,
    old,
    symbols: new Map(),
    errors: [],
    final,
    near,
    lines: [],
    out: [],
    mode: options.mode ?? 32,
    origin: BigInt(options.origin ?? 0),
    originSet: false,
    scope: "",
    grew: false,
    instructions: 0,
  };
  for (const line of lines) {
    const start = p.out.length;
    try {
      statement(p, new Cursor(line.tokens), line.number);
    } catch (error) {
      const message = report(line.number, error);
      if (final) p.errors.push(message);
    }
    const length = p.out.length - start;
    if (length > 0) {
      p.lines.push({ line: line.number, address: p.origin + BigInt(start), length });
    }
  }
  return p;
}

const here = (p: Pass): bigint => p.origin + BigInt(p.out.length);

function lookupFor(p: Pass): Lookup {
  return (name) => {
    if (name === "$") return { value: here(p), relocatable: true };
    if (name === "$$") return { value: p.origin, relocatable: true };
    const full = name.startsWith(".") ? p.scope + name : name;
    const found = p.symbols.get(full) ?? p.old.get(full);
    if (found) return found;
    const given = p.options.symbols;
    if (given && Object.hasOwn(given, name)) {
      return { value: BigInt(given[name]), relocatable: false };
    }
    // A forward reference of the first passes: any near value will do.
    return p.final ? undefined : { value: here(p), relocatable: true };
  };
}

function define(p: Pass, name: string, v: Value): void {
  const full = name.startsWith(".") ? p.scope + name : name;
  if (p.symbols.has(full)) throw new AssembleError(`"${full}" is defined twice`);
  p.symbols.set(full, v);
}

function statement(p: Pass, c: Cursor, line: number): void {
  while (c.peek()?.kind === "name" && c.peek(1)?.text === ":" && c.peek(1)?.kind === "mark") {
    const name = c.peek()!.text;
    if (!name.startsWith(".")) p.scope = name;
    define(p, name, { value: here(p), relocatable: true });
    c.at += 2;
  }
  if (c.peek()?.kind === "name" && c.peek(1)?.text.toLowerCase() === "equ") {
    const name = c.peek()!.text;
    c.at += 2;
    define(p, name, expression(c, lookupFor(p)));
    return finished(c);
  }
  if (c.done) return;
  const t = c.peek()!;
  if (t.kind !== "name") throw new AssembleError(`expected a mnemonic, found "${t.text}"`);
  const directive = directives[t.text.toLowerCase()];
  if (directive) {
    c.at++;
    directive(p, c, line);
    return finished(c);
  }
  instruction(p, c);
}

function finished(c: Cursor): void {
  if (!c.done) throw new AssembleError(`unexpected ${c.describe()} after the statement`);
}

/** A value that must be known now and small: for org, align, times. */
function count(p: Pass, c: Cursor, what: string, most: number): number {
  const { value } = expression(c, lookupFor(p));
  if (value < 0n || value > BigInt(most)) {
    if (!p.final) return 0;
    throw new AssembleError(`${what} ${value} is not between 0 and ${most}`);
  }
  return Number(value);
}

type Directive = (p: Pass, c: Cursor, line: number) => void;

const data = (bytes: number): Directive => (p, c) => {
  do {
    const t = c.peek();
    if (t?.kind === "string" && (c.peek(1) === undefined || c.peek(1)!.text === ",")) {
      c.at++;
      for (let i = 0; i < t.text.length; i++) p.out.push(t.text.charCodeAt(i) & 0xff);
      for (let i = padding(t.text.length, bytes); i > 0; i--) p.out.push(0);
      continue;
    }
    const { value } = expression(c, lookupFor(p));
    const bits = BigInt(8 * bytes);
    if (p.final && (value < -(1n << bits - 1n) || value >= 1n << bits)) {
      throw new AssembleError(`${value} does not fit into ${bytes} byte${bytes === 1 ? "" : "s"}`);
    }
    for (let i = 0n; i < bits; i += 8n) p.out.push(Number(value >> i & 0xffn));
  } while (c.take(","));
};

/** Bytes that fill a string of `length` up to a multiple of `unit`. */
function padding(length: number, unit: number): number {
  return (unit - length % unit) % unit;
}

const directives: Record<string, Directive> = {
  db: data(1),
  dw: data(2),
  dd: data(4),
  dq: data(8),
  bits(p, c) {
    const n = count(p, c, "bits", 64);
    if (n !== 16 && n !== 32 && n !== 64) throw new AssembleError(`bits is 16, 32 or 64, not ${n}`);
    p.mode = n;
  },
  org(p, c) {
    const { value } = expression(c, lookupFor(p));
    if (p.out.length === 0 && !p.originSet) {
      p.origin = value;
      p.originSet = true;
      return;
    }
    const gap = value - here(p);
    if (gap < 0n || gap > 1n << 28n) {
      throw new AssembleError(
        `org 0x${value.toString(16)}: the place is already at 0x${here(p).toString(16)}`,
      );
    }
    for (let i = 0n; i < gap; i++) p.out.push(0);
  },
  align(p, c) {
    const n = BigInt(count(p, c, "align", 1 << 24));
    const fill = c.take(",") ? count(p, c, "align's fill", 255) : 0;
    if (n === 0n) throw new AssembleError("align 0");
    while (here(p) % n !== 0n) p.out.push(fill);
  },
  times(p, c, line) {
    const n = count(p, c, "times", 1 << 26), at = c.at;
    const before = p.out.length;
    for (let i = 0; i < n; i++) {
      c.at = at;
      statement(p, c, line);
      const once = p.out.length - before;
      // Plain data repeats without being read again.
      if (i === 0 && n > 64 && isData(c, at)) {
        const piece = p.out.slice(before);
        for (let k = 1; k < n; k++) for (let j = 0; j < once; j++) p.out.push(piece[j]);
        break;
      }
    }
    if (n === 0) c.at = c.tokens.length;
  },
};

/** Whether a repeated statement is data or NOP without `$`, so that all copies are equal. */
function isData(c: Cursor, at: number): boolean {
  const first = c.tokens[at]?.text.toLowerCase();
  return (first === "db" || first === "dw" || first === "dd" || first === "dq" ||
    first === "nop") && !c.tokens.slice(at).some((t) => t.text === "$");
}

const prefixWords: Record<string, number> = {
  lock: 0xf0,
  rep: 0xf3,
  repe: 0xf3,
  repz: 0xf3,
  repne: 0xf2,
  repnz: 0xf2,
  bnd: 0xf2,
  notrack: 0x3e,
  es: 0x26,
  cs: 0x2e,
  ss: 0x36,
  ds: 0x3e,
  fs: 0x64,
  gs: 0x65,
  data16: 0x66,
  data32: 0x66,
  addr16: 0x67,
  addr32: 0x67,
};

function instruction(p: Pass, c: Cursor): void {
  let lock = false, rep = 0;
  const raw: number[] = [];
  for (;;) {
    const word = c.peek()?.text.toLowerCase() ?? "";
    const byte = c.peek()?.kind === "name" ? prefixWords[word] : undefined;
    if (byte === undefined) break;
    if (byte === 0xf0) lock = true;
    else if (byte === 0xf2 || byte === 0xf3) rep = byte;
    else raw.push(byte);
    c.at++;
  }
  const name = c.peek();
  if (name === undefined) {
    if (lock) raw.push(0xf0);
    if (rep !== 0) raw.push(rep);
    p.out.push(...raw);
    return;
  }
  if (name.kind !== "name") throw new AssembleError(`expected a mnemonic, found "${name.text}"`);
  c.at++;
  let mnemonic = name.text.toLowerCase();
  const operands: WrittenOperand[] = [];
  if (!c.done) {
    do operands.push(parseOperand(c, lookupFor(p))); while (c.take(","));
  }
  finished(c);
  if (mnemonic === "int" && operands.length === 0) mnemonic = "int3";
  emit(p, p.instructions++, { mnemonic, operands, lock, rep }, raw);
}

function emit(
  p: Pass,
  key: number,
  s: { mnemonic: string; operands: WrittenOperand[]; lock: boolean; rep: number },
  raw: number[],
): void {
  const address = here(p) + BigInt(raw.length), common = { ...s, mode: p.mode, address };
  const branch = s.operands.length === 1 && s.operands[0].kind === "immediate";
  const result = match({ ...common, near: branch && p.near.has(key) });
  // Once near, always near: so that the passes come to an end.
  if (branch && result.encoding.operands[0].text === "Jz" && !p.near.has(key)) {
    p.near.add(key);
    p.grew = true;
  }
  for (const b of raw) p.out.push(b);
  for (const b of result.bytes) p.out.push(b);
}
