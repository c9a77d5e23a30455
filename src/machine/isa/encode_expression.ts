/**
 * Tokens and expressions of the assembler's language.
 * @module
 */

/** A fault in assembler text; the assembler adds the line. */
export class AssembleError extends Error {
  override name = "AssembleError";
}

/** One token: a number, a string, a name (with dots), or a punctuation mark. */
export interface Token {
  readonly kind: "number" | "string" | "name" | "mark";
  readonly text: string;
  readonly value: bigint;
}

const pattern =
  /\s*(?:(0[xX][0-9a-fA-F_]+|0[bB][01_]+|[0-9][0-9a-fA-F_]*[hH]\b|[0-9][0-9_]*)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`)|([A-Za-z_.?@][A-Za-z0-9_.$?@]*|\$\$|\$)|(<<|>>|[-+*\/%&|^~(){}\[\],:=]))/y;

/** Splits a line (without its comment) into tokens. */
export function tokenize(line: string): Token[] {
  const out: Token[] = [];
  pattern.lastIndex = 0;
  const end = line.trimEnd().length;
  while (pattern.lastIndex < end) {
    const at = pattern.lastIndex, m = pattern.exec(line);
    if (!m) throw new AssembleError(`cannot read "${line.slice(at).trim()}"`);
    if (m[1] !== undefined) out.push({ kind: "number", text: m[1], value: number(m[1]) });
    else if (m[2] !== undefined) {
      const text = unescape(m[2].slice(1, -1));
      out.push({ kind: "string", text, value: characters(text) });
    } else if (m[3] !== undefined) out.push({ kind: "name", text: m[3], value: 0n });
    else out.push({ kind: "mark", text: m[4], value: 0n });
  }
  return out;
}

function number(text: string): bigint {
  const plain = text.replaceAll("_", "");
  if (/[hH]$/.test(plain)) return BigInt("0x" + plain.slice(0, -1));
  if (/^[0-9]+$/.test(plain)) return BigInt(plain.replace(/^0+(?=\d)/, ""));
  return BigInt(plain);
}

const escapes: Record<string, string> = { n: "\n", r: "\r", t: "\t", "0": "\0", e: "\x1b" };

function unescape(text: string): string {
  return text.replace(
    /\\(x[0-9a-fA-F]{2}|.)/g,
    (_, c: string) =>
      c.length === 3 ? String.fromCharCode(parseInt(c.slice(1), 16)) : escapes[c] ?? c,
  );
}

/** A string as a little-endian number, as in `mov al, 'A'`. */
function characters(text: string): bigint {
  let value = 0n;
  for (let i = Math.min(text.length, 8) - 1; i >= 0; i--) {
    value = value << 8n | BigInt(text.charCodeAt(i) & 0xff);
  }
  return value;
}

/** A value, and whether it depends on a label's place (then its width must not depend on it). */
export interface Value {
  readonly value: bigint;
  readonly relocatable: boolean;
}

/** What names mean while a line is assembled; undefined for an unknown one. */
export type Lookup = (name: string) => Value | undefined;

/** Reads tokens one after another. */
export class Cursor {
  at = 0;
  constructor(readonly tokens: readonly Token[]) {}

  /** The token `ahead` places on, or undefined at the end. */
  peek(ahead = 0): Token | undefined {
    return this.tokens[this.at + ahead];
  }

  /** Takes the mark `text` if it is next. */
  take(text: string): boolean {
    const t = this.peek();
    if (t === undefined || t.kind !== "mark" || t.text !== text) return false;
    this.at++;
    return true;
  }

  /** Takes the name `text` (any case) if it is next. */
  takeName(text: string): boolean {
    const t = this.peek();
    if (t === undefined || t.kind !== "name" || t.text.toLowerCase() !== text) return false;
    this.at++;
    return true;
  }

  /** Takes the mark `text` or throws. */
  expect(text: string): void {
    if (!this.take(text)) {
      throw new AssembleError(`expected "${text}", found ${this.describe()}`);
    }
  }

  /** The next token for a message. */
  describe(): string {
    const t = this.peek();
    return t === undefined ? "the end of the line" : `"${t.text}"`;
  }

  get done(): boolean {
    return this.at >= this.tokens.length;
  }
}

const binary: readonly Record<string, (a: bigint, b: bigint) => bigint>[] = [
  { "|": (a, b) => a | b },
  { "^": (a, b) => a ^ b },
  { "&": (a, b) => a & b },
  { "<<": (a, b) => a << b, ">>": (a, b) => a >> b },
  { "+": (a, b) => a + b, "-": (a, b) => a - b },
  { "*": (a, b) => a * b, "/": divide, "%": (a, b) => b === 0n ? divide(a, b) : a % b },
];

function divide(a: bigint, b: bigint): bigint {
  if (b === 0n) throw new AssembleError("division by zero in an expression");
  return a / b;
}

/** Evaluates the expression at the cursor, with C's precedences. */
export function expression(c: Cursor, lookup: Lookup, level = 0): Value {
  if (level === binary.length) return primary(c, lookup);
  let left = expression(c, lookup, level + 1);
  for (;;) {
    const t = c.peek();
    const operator = t?.kind === "mark" ? binary[level][t.text] : undefined;
    if (operator === undefined) return left;
    c.at++;
    const right = expression(c, lookup, level + 1);
    left = {
      value: operator(left.value, right.value),
      relocatable: left.relocatable || right.relocatable,
    };
  }
}

function primary(c: Cursor, lookup: Lookup): Value {
  if (c.take("(")) {
    const inner = expression(c, lookup);
    c.expect(")");
    return inner;
  }
  if (c.take("-")) {
    const v = primary(c, lookup);
    return { value: -v.value, relocatable: v.relocatable };
  }
  if (c.take("+")) return primary(c, lookup);
  if (c.take("~")) {
    const v = primary(c, lookup);
    return { value: ~v.value, relocatable: v.relocatable };
  }
  const t = c.peek();
  if (t === undefined || t.kind === "mark") {
    throw new AssembleError(`expected a value, found ${c.describe()}`);
  }
  c.at++;
  if (t.kind !== "name") return { value: t.value, relocatable: false };
  const value = lookup(t.text);
  if (value === undefined) throw new AssembleError(`"${t.text}" is not defined`);
  return value;
}
