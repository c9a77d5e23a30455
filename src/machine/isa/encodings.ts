/**
 * The one table of instruction encodings: decoder, assembler, disassembler, predecoder, debugger
 * and semantics all read it; semantics that do what their row does not say cannot be built.
 * Sources: Intel SDM vol. 2 (opcode maps in appendix A), AMD APM vol. 3.
 *
 * A row is `NAME  OPCODE  OPERANDS  ATTRIBUTES`, columns two or more blanks apart, `-` for none.
 *
 * NAME: the semantics key. The printed mnemonic is the part before a dot, or attribute `as:`.
 * `{cc}` makes 16 rows, one for each condition.
 * OPCODE: `np` (no 66, F2, F3), `nf` (no F2, F3) or the mandatory prefix, `rexw`, the opcode bytes,
 * then `/digit` (ModRM.reg) or a last byte that is ModRM as a whole; `+r`, `+cc` added to the byte.
 * OPERANDS: see operands.ts.
 * ATTRIBUTES: see {@linkcode Attributes}.
 * @module
 */
import type { FlagKindName } from "./flags.ts";
import { conditions, type gpr64 } from "../../abi/x86/registers.ts";
import { integerRows } from "./encodings_integer.ts";
import { simdRows } from "./encodings_simd.ts";
import { systemRows } from "./encodings_system.ts";
import { x87Rows } from "./encodings_x87.ts";
import type { InterceptKind } from "../system/intercepts.ts";
import { type OperandKind, type OperandSpec, operandSpec } from "./operands.ts";

/**
 * State that an instruction can take or leave beside its operands: `x87` is all that FSAVE stores, MMX
 * registers being part of it, `xmm` any XMM register.
 */
export type Implied = typeof gpr64[number] | "x87" | "mxcsr" | "xmm";

/** What else a row says of its instruction. */
export interface Attributes {
  /** LOCK is legal when the first operand is memory. */
  readonly lock: boolean;
  /** Invalid in 64-bit mode. */
  readonly i64: boolean;
  /** Valid in 64-bit mode only. */
  readonly o64: boolean;
  /** In 64-bit mode the operand size is 64 unless 66 makes it 16. */
  readonly d64: boolean;
  /** In 64-bit mode the operand size is always 64. */
  readonly f64: boolean;
  /** A near branch: f64, but 66 makes the operand size 16 where it `cutsBranches` (decode.ts). */
  readonly near: boolean;
  /** What it raises unless CPL is 0, #GP(0) (`cpl0`) or #UD (`cpl0ud`). */
  readonly privilege: "" | "gp" | "ud";
  /** The bit of CR4 that makes it #GP(0) unless CPL is 0. */
  readonly guard: "" | "umip" | "tsd" | "pce";
  /** Sensitive to IOPL (and, for I/O, to the permission bitmap). */
  readonly iopl: boolean;
  /** "rep": repeats under F2 and F3; "repz": they also test ZF. */
  readonly rep: "" | "rep" | "repz";
  /** What it raises in real mode, and most in virtual-8086 mode too: #UD (`pm`), #GP(0) (`pmgp`). */
  readonly pm: "" | "ud" | "gp";
  /** ModRM.mod is ignored: rm is always a register (MOV to and from CR, DR). */
  readonly nomod: boolean;
  /** ModRM must be memory ("mem"), a register ("reg"), or either (""). */
  readonly form: "" | "mem" | "reg";
  /** VM exits that it may cause by itself (`exit:`, commas between them). */
  readonly exit: readonly InterceptKind[];
  /**
   * Flags that decide what it does, that it may change, and that it leaves undefined: letters of
   * `flagBits`. TF, NT, RF, VM, IOPL, ID and virtual interrupt flags are not listed; what an
   * exception or a task switch saves and loads belongs to that.
   */
  readonly read: string;
  readonly written: string;
  readonly undefined: string;
  /**
   * State beside operands and flags that it looks at, and that it may change (`in:`, `out:`, `inout:`
   * for both, commas between them). Those of feature x87 have `x87` in both unless they say otherwise;
   * what string and MMX operands and a repeat prefix imply is not written down (`impliedBy`). What a
   * task switch, a VM entry or a VM exit saves and loads belongs to that; MXCSR.MM to the operand.
   */
  readonly in: readonly Implied[];
  readonly out: readonly Implied[];
  /** The kind of lazy flags it always leaves (`lazy:`), "" if that depends. */
  readonly lazy: FlagKindName | "";
  /**
   * Where it goes on: behind it ("", a conditional jump too), elsewhere (`jump`; `return`: where a
   * call came from), or elsewhere and back (`call`).
   */
  readonly flow: "" | "jump" | "return" | "call";
  /**
   * It has handlers of its own in flat code (`hot:`): for flat segments alone, for others too, or
   * ("all") for these and 16-bit operands.
   */
  readonly hot: "" | "flat" | "segments" | "all";
  /** CPUID feature, "" for the base set. */
  readonly feature: string;
}

/** Mandatory-prefix classes of a row. */
export type PrefixClass = "any" | "np" | "nf" | "66" | "f3" | "f2";

/** One encoding. */
export interface Encoding {
  /** Position in {@linkcode encodings}. */
  readonly id: number;
  /** Name of the semantics. */
  readonly key: string;
  readonly mnemonic: string;
  /** Condition 0 to 15 of a conditional instruction, else -1. */
  readonly cc: number;
  /** The opcode column, conditions filled in. */
  readonly opcode: string;
  readonly operands: readonly OperandSpec[];
  readonly attributes: Attributes;
  readonly prefix: PrefixClass;
  /** REX.W is required. */
  readonly rexw: boolean;
  /** Opcode map: 0 one byte, 1 0F, 2 0F 38, 3 0F 3A. */
  readonly map: 0 | 1 | 2 | 3;
  /** The opcode byte in its map (lowest of eight with `plusR`). */
  readonly byte: number;
  readonly plusR: boolean;
  readonly hasModrm: boolean;
  /** ModRM.reg required, or -1. */
  readonly digit: number;
  /** ModRM required as a whole, or -1. */
  readonly modrm: number;
}

const features = new Set(
  ("cmov cx8 cx16 mmx sse sse2 sse3 ssse3 sse41 sse42 x87 fxsr xsave xsaveopt xsavec xsaves " +
    "popcnt movbe rdrand rdseed rdtscp invpcid smap monitor fsgsbase clflush clflushopt clwb sep syscall vmx svm " +
    "sse4a prefetchw msr tsc cpuid lahf").split(" "),
);
/** Letters of the flags that a pair of conditions reads. */
export const conditionReads = ["o", "c", "z", "cz", "s", "p", "so", "soz"];

/** Columns of state: `in:rcx`, `out:rax,rdx`, `inout:mxcsr`, `in:-`. */
const STATE = /^(in|out|inout):/;

type Writable<T> = { -readonly [K in keyof T]: T[K] };

function parseAttributes(text: string, row: string): { attributes: Attributes; as: string } {
  let as = "";
  const a: Writable<Attributes> = {
    lock: false,
    i64: false,
    o64: false,
    d64: false,
    f64: false,
    near: false,
    privilege: "",
    guard: "",
    iopl: false,
    rep: "",
    pm: "",
    nomod: false,
    form: "",
    exit: [],
    read: "",
    written: "",
    undefined: "",
    in: [],
    out: [],
    lazy: "",
    flow: "",
    hot: "",
    feature: "",
  };
  let state = false;
  for (const word of text === "" || text === "-" ? [] : text.split(" ")) {
    const value = word.slice(2);
    if (word.startsWith("w:")) a.written = value;
    else if (word.startsWith("r:")) a.read = value;
    else if (word.startsWith("u:")) a.undefined = value;
    else if (STATE.test(word)) {
      state = true;
      const [column, names] = word.split(":"), list = names === "-" ? [] : names.split(",");
      if (column !== "out") a.in = list as Implied[];
      if (column !== "in") a.out = list as Implied[];
    } else if (word.startsWith("as:")) as = word.slice(3);
    else if (word.startsWith("exit:")) a.exit = word.slice(5).split(",") as InterceptKind[];
    else if (word.startsWith("lazy:")) a.lazy = word.slice(5) as FlagKindName;
    else if (word === "rep" || word === "repz") a.rep = word;
    else if (word === "jump" || word === "call" || word === "return") a.flow = word;
    else if (word.startsWith("hot:")) a.hot = word.slice(4) as Attributes["hot"];
    else if (word === "umip" || word === "tsd" || word === "pce") a.guard = word;
    else if (word === "cpl0" || word === "cpl0ud") a.privilege = word === "cpl0" ? "gp" : "ud";
    else if (word === "pm" || word === "pmgp") a.pm = word === "pm" ? "ud" : "gp";
    else if (word === "mem" || word === "reg") a.form = word;
    else if (features.has(word)) a.feature = word;
    else {
      switch (word) {
        case "lock":
        case "i64":
        case "o64":
        case "d64":
        case "f64":
        case "near":
        case "iopl":
        case "nomod":
          a[word] = true;
          break;
        default:
          throw new Error(`encoding table: unknown attribute "${word}" in row "${row}"`);
      }
    }
  }
  if (a.feature === "x87" && !state) a.in = a.out = ["x87"];
  return { attributes: a, as };
}

interface Opcode {
  prefix: PrefixClass;
  rexw: boolean;
  map: 0 | 1 | 2 | 3;
  byte: number;
  plusR: boolean;
  plusCc: boolean;
  digit: number;
  modrm: number;
}

function parseOpcode(text: string, row: string): Opcode {
  const words = text.split(" ");
  const bytes: number[] = [];
  const o: Opcode = {
    prefix: "any",
    rexw: false,
    map: 0,
    byte: 0,
    plusR: false,
    plusCc: false,
    digit: -1,
    modrm: -1,
  };
  for (const word of words) {
    if (word === "np" || word === "nf") o.prefix = word;
    else if (word === "rexw") o.rexw = true;
    else if (word[0] === "/") o.digit = Number(word[1]);
    else if (
      bytes.length === 0 && words.length > 1 && (word === "66" || word === "f2" || word === "f3")
    ) o.prefix = word;
    else {
      const byte = parseInt(word, 16), plus = word.slice(2);
      if (Number.isNaN(byte) || (plus !== "" && plus !== "+r" && plus !== "+cc")) {
        throw new Error(`encoding table: "${word}" is no opcode byte in row "${row}"`);
      }
      bytes.push(byte);
      if (plus === "+r") o.plusR = true;
      if (plus === "+cc") o.plusCc = true;
    }
  }
  let at = 0;
  if (bytes[0] === 0x0f) {
    const second = bytes[1];
    o.map = second === 0x38 ? 2 : second === 0x3a ? 3 : 1;
    at = o.map === 1 ? 1 : 2;
  }
  o.byte = bytes[at];
  if (bytes.length > at + 1) o.modrm = bytes[at + 1];
  return o;
}

const modrmKinds = new Set("E G M R S C D P Q N V W U sti".split(" "));
const registerKinds = new Set(["R", "N", "U", "sti"]);

/** An operand column, parsed once. */
interface Column {
  readonly operands: readonly OperandSpec[];
  readonly hasModrm: boolean;
  /** ModRM form that the operands demand. */
  readonly form: "" | "mem" | "reg";
  /** State that the operands imply. */
  readonly implied: readonly Implied[];
  /** The last two as text. */
  readonly says: string;
}

const impliedBy: Partial<Record<OperandKind, readonly Implied[]>> = {
  X: ["rsi"],
  Y: ["rdi"],
  P: ["x87"],
  Q: ["x87"],
  N: ["x87"],
};

function parseOperands(text: string): Column {
  const operands = text === "-" ? [] : text.split(",").map(operandSpec);
  const hasModrm = operands.some((x) => modrmKinds.has(x.kind));
  const form = operands.some((x) => x.kind === "M")
    ? "mem"
    : operands.some((x) => registerKinds.has(x.kind))
    ? "reg"
    : "";
  const implied = [...new Set(operands.flatMap((x) => impliedBy[x.kind] ?? []))];
  return { operands, hasModrm, form, implied, says: `/${form}/${implied}` };
}

// Most columns recur: rows share the parsed ones.
const columns = new Map<string, Column>();
const attributeTexts = new Map<string, ReturnType<typeof parseAttributes>>();

function recall<T>(cache: Map<string, T>, key: string, make: () => T): T {
  let value = cache.get(key);
  if (value === undefined) cache.set(key, value = make());
  return value;
}

/** Cuts a row at two blanks or more. */
function cut(row: string): string[] {
  const out: string[] = [];
  for (let at = 0; at < row.length;) {
    let end = row.indexOf("  ", at);
    if (end < 0) end = row.length;
    out.push(row.slice(at, end));
    at = end;
    while (row[at] === " ") at++;
  }
  return out;
}

function addRow(row: string, out: Encoding[]): void {
  const [name, opcode, operandText = "-", attributeText = ""] = cut(row);
  const o = parseOpcode(opcode, row);
  const column = recall(columns, operandText, () => parseOperands(operandText));
  const parsed = recall(
    attributeTexts,
    attributeText + column.says,
    () => withColumn(parseAttributes(attributeText, row), column),
  );
  const plain = {
    ...o,
    operands: column.operands,
    hasModrm: column.hasModrm || o.digit >= 0 || o.modrm >= 0,
  };
  if (o.plusCc) addConditions(name, opcode, plain, parsed.attributes, out);
  else {
    const mnemonic = parsed.as || (name.includes(".") ? name.split(".")[0] : name);
    const { attributes } = parsed;
    out.push(encoding(out.length, name, mnemonic, -1, opcode, plain, o.byte, attributes));
  }
}

type Parsed = ReturnType<typeof parseAttributes>;

/** What the operands and a repeat prefix say besides. */
function withColumn(parsed: Parsed, column: Column): Parsed {
  const { attributes } = parsed;
  const form = column.form === "reg" && attributes.nomod ? "" : column.form;
  const implied = attributes.rep === "" ? column.implied : [...column.implied, "rcx" as const];
  if (form === "" && implied.length === 0) return parsed;
  return {
    ...parsed,
    attributes: {
      ...attributes,
      form: form || attributes.form,
      in: [...attributes.in, ...implied],
      out: [...attributes.out, ...implied],
    },
  };
}

type Plain = Opcode & Pick<Encoding, "operands" | "hasModrm">;

function encoding(
  id: number,
  key: string,
  mnemonic: string,
  cc: number,
  opcode: string,
  plain: Plain,
  byte: number,
  attributes: Attributes,
): Encoding {
  const { operands, prefix, rexw, map, plusR, hasModrm, digit, modrm } = plain;
  return {
    id,
    key,
    mnemonic,
    cc,
    opcode,
    operands,
    attributes,
    prefix,
    rexw,
    map,
    byte,
    plusR,
    hasModrm,
    digit,
    modrm,
  };
}

/** The 16 rows of a conditional instruction. */
function addConditions(
  name: string,
  opcode: string,
  plain: Plain,
  common: Attributes,
  out: Encoding[],
): void {
  for (let cc = 0; cc < 16; cc++) {
    const attributes = common.read === "cc" ? { ...common, read: conditionReads[cc >> 1] } : common;
    const byte = plain.byte + cc, text = opcode.replace(/..\+cc/, byte.toString(16));
    const key = name.replace("{cc}", "cc"), mnemonic = name.replace("{cc}", conditions[cc]);
    out.push(encoding(out.length, key, mnemonic, cc, text, plain, byte, attributes));
  }
}

function load(texts: string[]): Encoding[] {
  const out: Encoding[] = [];
  for (const text of texts) {
    for (const line of text.split("\n")) {
      if (line !== "" && line[0] !== "#") addRow(line.trimEnd(), out);
    }
  }
  return out;
}

/** What is said of all encodings of a key (with its condition) alike: what its semantics does. */
export type KeyColumns = Pick<
  Attributes,
  | "privilege"
  | "guard"
  | "iopl"
  | "pm"
  | "exit"
  | "read"
  | "written"
  | "undefined"
  | "in"
  | "out"
  | "lazy"
  | "flow"
  | "hot"
>;

/** Every encoding, by id. */
export const encodings: readonly Encoding[] = load([integerRows, systemRows, x87Rows, simdRows]);

let byKey: Map<string, KeyColumns> | undefined;

/** The rows of an instruction taken together: they differ in what their operands imply. */
function merged(rows: readonly Encoding[]): KeyColumns {
  const all = (column: "in" | "out") => [...new Set(rows.flatMap((e) => e.attributes[column]))];
  return { ...rows[0].attributes, in: all("in"), out: all("out") };
}

/** The columns of an instruction by key and condition (-1 for none); undefined for what is none. */
export function columnsOf(key: string, cc: number): KeyColumns | undefined {
  byKey ??= new Map(
    [...Map.groupBy(encodings, (e) => `${e.key}.${e.cc}`)].map(([k, rows]) => [k, merged(rows)]),
  );
  return byKey.get(`${key}.${cc}`);
}
