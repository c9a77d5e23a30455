/**
 * Chooses the encoding of an assembler statement: every row of the mnemonic whose operands fit is
 * encoded, and the shortest result wins.
 * @module
 */
import { conditionAliases, conditions, SS } from "../../abi/x86/registers.ts";
import { BASE_RIP, decode, DecodeStatus, Instruction } from "./decode.ts";
import { AssembleError } from "./encode_expression.ts";
import { encode, type EncodeFields } from "./encode_instruction.ts";
import type { MemoryOperand, RegisterOperand, WrittenOperand } from "./encode_operands.ts";
import { type Encoding, encodings } from "./encodings.ts";
import { type OperandSpec, sizeBytes } from "./operands.ts";

type Mode = 16 | 32 | 64;

/** A mnemonic as written, in the table's terms. */
export interface MnemonicMeaning {
  readonly rows: readonly Encoding[];
  /** Width fixed by the mnemonic (PUSHFD), 0 if not. */
  readonly operandSize: number;
  readonly addressSize: number;
  /** Bytes of string operands fixed by the mnemonic (MOVSB), 0 if not. */
  readonly stringBytes: number;
  /** Immediate fixed by the mnemonic (CMPLTPS), -1 if not. */
  readonly predicate: number;
  /** FWAIT goes before it (FSTCW). */
  readonly wait: boolean;
}

const meanings = new Map<string, MnemonicMeaning[]>();

function define(
  name: string,
  rows: readonly Encoding[],
  more: Partial<MnemonicMeaning> = {},
): void {
  const meaning = {
    rows,
    operandSize: 0,
    addressSize: 0,
    stringBytes: 0,
    predicate: -1,
    wait: false,
    ...more,
  };
  const list = meanings.get(name);
  if (list) list.push(meaning);
  else meanings.set(name, [meaning]);
}

/** The meanings of a mnemonic in lower case; undefined for an unknown one. */
function meaningsOf(name: string): readonly MnemonicMeaning[] | undefined {
  if (meanings.size === 0) defineAll();
  return meanings.get(name);
}

const synonyms: Record<string, string> = {
  sal: "shl",
  loopz: "loope",
  loopnz: "loopne",
  retn: "ret",
  wait: "fwait",
  icebp: "int1",
  ud2a: "ud2",
  ud2b: "ud1",
  xlatb: "xlat",
  movabs: "mov",
  fcompi: "fcomip",
  fucompi: "fucomip",
};
const widthForms: [string, string, string, string][] = [
  // mnemonic, its 16-, 32- and 64-bit names
  ["pusha", "pushaw", "pushad", ""],
  ["popa", "popaw", "popad", ""],
  ["pushf", "pushfw", "pushfd", "pushfq"],
  ["popf", "popfw", "popfd", "popfq"],
  ["iret", "iretw", "iretd", "iretq"],
  ["ret", "retw", "retd", "retq"],
  ["retf", "retfw", "retfd", "retfq"],
  ["enter", "enterw", "enterd", "enterq"],
  ["leave", "leavew", "leaved", "leaveq"],
  ["cbw", "cbw", "cwde", "cdqe"],
  ["cwd", "cwd", "cdq", "cqo"],
  ["push", "pushw", "pushd", "pushq"],
  ["pop", "popw", "popd", "popq"],
  ["call", "callw", "calld", "callq"],
  ["jmp", "jmpw", "jmpd", "jmpq"],
  ["sgdt", "sgdtw", "sgdtd", ""],
  ["sidt", "sidtw", "sidtd", ""],
  ["lgdt", "lgdtw", "lgdtd", ""],
  ["lidt", "lidtw", "lidtd", ""],
  ["fldenv", "fldenvw", "fldenvd", ""],
  ["fnstenv", "fnstenvw", "fnstenvd", ""],
  ["frstor", "frstorw", "frstord", ""],
  ["fnsave", "fnsavew", "fnsaved", ""],
  ["sysret", "", "sysretd", "sysretq"],
  ["sysexit", "", "sysexitd", "sysexitq"],
];

function defineAll(): void {
  const byName = new Map<string, Encoding[]>();
  for (const e of encodings) {
    const list = byName.get(e.mnemonic);
    if (list) list.push(e);
    else byName.set(e.mnemonic, [e]);
  }
  const fixedWidth = new Set(["cbw", "cwd", "jcxz"]);
  for (const [name, rows] of byName) {
    if (!fixedWidth.has(name)) define(name, rows);
    if (/^fn[a-z]/.test(name) && name !== "fnop") define("f" + name.slice(2), rows, { wait: true });
  }
  for (const [name, real] of Object.entries(synonyms)) define(name, byName.get(real)!);
  for (const [name, ...forms] of widthForms) {
    forms.forEach((form, i) => {
      if (form !== "") define(form, byName.get(name)!, { operandSize: 16 << i });
    });
  }
  ["jcxz", "jecxz", "jrcxz"].forEach((form, i) =>
    define(form, byName.get("jcxz")!, { addressSize: 16 << i })
  );
  for (const [alias, cc] of Object.entries(conditionAliases)) {
    for (const stem of ["j", "set", "cmov"]) {
      define(stem + alias, byName.get(stem + conditions[cc])!);
    }
  }
  for (const name of ["movs", "cmps", "stos", "lods", "scas", "ins", "outs"]) {
    [1, 2, 4, 8].forEach((stringBytes, i) => {
      define(name + "bwdq"[i], byName.get(name)!, { stringBytes });
    });
  }
  const predicates = ["eq", "lt", "le", "unord", "neq", "nlt", "nle", "ord"];
  for (const kind of ["ps", "pd", "ss", "sd"]) {
    predicates.forEach((p, predicate) =>
      define(`cmp${p}${kind}`, byName.get("cmp" + kind)!.filter((e) => e.operands.length === 3), {
        predicate,
      })
    );
  }
}

/** What is given to {@linkcode match}. */
export interface Statement {
  readonly mnemonic: string;
  readonly operands: readonly WrittenOperand[];
  readonly lock: boolean;
  readonly rep: number;
  readonly mode: Mode;
  /** Address of the first byte. */
  readonly address: bigint;
  /** Branches must not be short (a former pass found it too far). */
  readonly near: boolean;
}

interface Candidate {
  readonly bytes: Uint8Array;
  readonly encoding: Encoding;
  readonly memoryBytes: number;
}

const check = new Instruction();

/**
 * The shortest bytes for a statement. Throws an AssembleError that says what does not fit.
 */
export function match(s: Statement): Candidate {
  const all = meaningsOf(s.mnemonic);
  if (!all) throw new AssembleError(`unknown mnemonic "${s.mnemonic}"`);
  const found: Candidate[] = [];
  let reason = "", rank = -1;
  const failed = (why: string, r: number) => {
    if (r > rank) reason = why, rank = r;
  };
  const orders = commutes.has(s.mnemonic) && s.operands.length === 2
    ? [s, { ...s, operands: [s.operands[1], s.operands[0]] }]
    : [s];
  for (const meaning of all) {
    for (const e of meaning.rows) {
      if (!modeAllows(e, s.mode)) {
        failed(`does not exist in ${s.mode}-bit mode`, 0);
        continue;
      }
      for (const operandSize of operandSizes(e, meaning, s.mode)) {
        for (const order of orders) {
          const r = attempt(order, e, meaning, operandSize);
          if (typeof r === "string") failed(r, rankOf(r));
          else found.push(r);
        }
      }
    }
  }
  if (found.length === 0) {
    throw new AssembleError(`${s.mnemonic}: ${reason || "the operands do not fit"}`);
  }
  ambiguous(s, found);
  return found.reduce((a, b) => b.bytes.length < a.bytes.length ? b : a);
}

const commutes = new Set(["xchg", "test"]);

/** Of several rows' objections, the one worth showing: values before kinds before counts. */
function rankOf(why: string): number {
  if (/fit into|away|LOCK|REX|exist/.test(why)) return 3;
  return why.startsWith("takes") ? 1 : 2;
}

function modeAllows(e: Encoding, mode: Mode): boolean {
  return mode === 64 ? !e.attributes.i64 : !e.attributes.o64 && !e.rexw;
}

/** Operand size of a row without 66 and REX.W, or with those it demands. */
function plainSize(e: Encoding, mode: Mode): number {
  if (mode !== 64) return e.prefix === "66" ? 48 - mode : mode;
  return e.attributes.f64 || e.attributes.d64 || e.rexw ? 64 : e.prefix === "66" ? 16 : 32;
}

/** Operand sizes worth trying, the mode's own first. */
function operandSizes(e: Encoding, m: MnemonicMeaning, mode: Mode): number[] {
  if (m.operandSize !== 0) return [m.operandSize];
  const plain = plainSize(e, mode);
  if (e.prefix === "66") {
    return mode !== 64 ? [48 - mode] : e.rexw || e.attributes.f64 ? [64] : [16, 64];
  }
  if (e.rexw) return [64];
  const sized = m.stringBytes !== 0 ||
    e.operands.some((o) =>
      "vzypae".includes(o.size || "-") || "vzypaef".includes(o.memorySize || "-")
    );
  if (!sized || e.attributes.f64 && mode === 64) return [plain];
  return mode !== 64 ? [mode, 48 - mode] : [plain, ...[16, 32, 64].filter((n) => n !== plain)];
}

const defaultsToMode = new Set(["call", "jmp", "push", "pop"]);

/** Refuses memory whose width neither the text nor the other operands tell. */
function ambiguous(s: Statement, found: Candidate[]): void {
  const m = s.operands.find((o) => o.kind === "memory");
  if (!m || m.kind !== "memory" || m.bytes !== 0) return;
  const widths = new Set(found.map((f) => f.memoryBytes));
  if (widths.size < 2) return;
  if (defaultsToMode.has(s.mnemonic)) {
    const first = found[0].memoryBytes;
    for (let i = found.length - 1; i >= 0; i--) {
      if (found[i].memoryBytes !== first) found.splice(i, 1);
    }
    return;
  }
  throw new AssembleError(
    `${s.mnemonic}: the memory operand's width is not clear; write byte, word, dword, qword ... ` +
      `before it (${[...widths].join(", ")} bytes are possible)`,
  );
}

/** Mutable state of one attempt. */
interface Build {
  readonly s: Statement;
  readonly e: Encoding;
  readonly operandSize: number;
  readonly f: EncodeFields;
  high: boolean;
  /** The text tells the operand size. */
  tied: boolean;
  memoryBytes: number;
  /** Address that a relative operand must reach, if any. */
  target?: bigint;
  ripTarget?: bigint;
}

/** The bytes of row `e` at that operand size, or why not. */
function attempt(
  s: Statement,
  e: Encoding,
  m: MnemonicMeaning,
  operandSize: number,
): Candidate | string {
  const specs = m.predicate >= 0 ? e.operands.slice(0, 2) : e.operands;
  const operands = implied(s, specs);
  if (operands.length !== specs.length) {
    return `takes ${specs.length} operand${
      specs.length === 1 ? "" : "s"
    }, ${s.operands.length} given`;
  }
  const f: EncodeFields = { operandSize, lock: s.lock, rep: s.rep };
  const b: Build = { s, e, operandSize, f, high: false, tied: false, memoryBytes: 0 };
  b.tied = m.operandSize !== 0 || m.stringBytes !== 0 || operandSize === plainSize(e, s.mode);
  if (m.addressSize !== 0) f.addressSize = m.addressSize;
  if (m.predicate >= 0) f.immediate = m.predicate;
  if (e.key === "mov" && s.mnemonic === "movabs" && !specs.some((o) => /^(Iv|O)/.test(o.text))) {
    return "movabs needs a 64-bit immediate or an absolute address";
  }
  let immediates = 0;
  for (let i = 0; i < specs.length; i++) {
    const given = operands[i], o = specs[i];
    if (given === undefined) {
      if (m.stringBytes !== 0 && "XY".includes(o.kind)) {
        if (sizeBytes(o.memorySize, operandSize) !== m.stringBytes) return "no such width";
      }
      continue;
    }
    const why = place(b, o, given, immediates);
    if (why !== "") return why;
    if (o.kind === "I") immediates++;
  }
  if (!b.tied) return "the operand size is not written";
  return finish(b, m);
}

/** Operands with what may be left out filled in: string operands, the x87 stack top. */
function implied(s: Statement, specs: readonly OperandSpec[]): (WrittenOperand | undefined)[] {
  const given = [...s.operands];
  if (given.length === specs.length) return given;
  const stack = (number: number): RegisterOperand => ({
    kind: "register",
    class: "st",
    number,
    bits: 80,
    needsRex: false,
    name: `st${number}`,
  });
  if (specs.length > 0 && specs.every((o) => o.kind === "st" || o.kind === "sti")) {
    if (given.length === 0) return specs.map((o) => stack(o.kind === "st" ? 0 : 1));
    if (given.length === 1 && specs.length === 2) {
      const other = given[0];
      return specs.map((o) => o.kind === "st" ? stack(0) : other);
    }
  }
  const optional = (o: OperandSpec) => "XYB".includes(o.kind) || o.kind === "gpr";
  if (given.length === 0 && specs.some((o) => "XYB".includes(o.kind)) && specs.every(optional)) {
    return specs.map(() => undefined);
  }
  if (given.length === specs.length - 1 && specs.at(-1)!.kind === "xmm") {
    return [...given, undefined];
  }
  if (given.length === specs.length - 1 && specs.at(-1)!.kind === "one") {
    return [...given, undefined];
  }
  return given;
}

function finish(b: Build, m: MnemonicMeaning): Candidate | string {
  const { s, e, f } = b;
  if (b.high && s.mode === 64 && (f.forceRex || b.operandSize === 64)) {
    return "AH, BH, CH, DH cannot be used with a REX prefix";
  }
  let bytes: Uint8Array;
  try {
    bytes = encode(e, f, s.mode);
    if (b.target !== undefined || b.ripTarget !== undefined) {
      const why = relative(b, bytes.length + (m.wait ? 1 : 0));
      if (why !== "") return why;
      bytes = encode(e, f, s.mode);
    }
  } catch (error) {
    if (error instanceof RangeError) return error.message;
    throw error;
  }
  const status = decode(bytes, 0, bytes.length, s.mode, check);
  const illegal = status === DecodeStatus.LockUndefined;
  if (illegal) return "LOCK needs a read-modify-write instruction with a memory destination";
  if (status !== DecodeStatus.Ok || check.encoding.id !== e.id || b.high && check.rex !== 0) {
    return "the operands do not fit";
  }
  if (m.wait) bytes = new Uint8Array([0x9b, ...bytes]);
  return { bytes, encoding: e, memoryBytes: b.memoryBytes };
}

/** Fills in what is relative to the end of the instruction, now that its length is known. */
function relative(b: Build, length: number): string {
  const { s, f } = b, next = s.address + BigInt(length);
  if (b.ripTarget !== undefined) {
    const d = BigInt.asIntN(64, b.ripTarget - next);
    if (d !== BigInt.asIntN(32, d)) return "the RIP-relative target is more than 2 GB away";
    f.displacement = Number(d);
  }
  if (b.target === undefined) return "";
  const width = b.operandSize === 16 ? 16 : s.mode === 64 ? 64 : 32;
  const d = BigInt.asIntN(width, b.target - next);
  const short = b.e.operands.at(-1)!.size === "b";
  if (short && d !== BigInt.asIntN(8, d)) {
    return `the target is ${d} bytes away, a short branch reaches -128 to 127`;
  }
  if (d !== BigInt.asIntN(32, d)) return "the target is more than 2 GB away";
  f.immediate = Number(d);
  return "";
}

/** Puts one operand into the fields; "" or why it does not fit. */
function place(b: Build, o: OperandSpec, given: WrittenOperand, immediates: number): string {
  switch (given.kind) {
    case "register":
      return placeRegister(b, o, given);
    case "memory":
      return placeMemory(b, o, given);
    case "immediate":
      return o.kind === "J"
        ? placeTarget(b, o, given)
        : placeImmediate(b, o, given.value, given.bytes, immediates);
    case "far":
      if (o.kind !== "A") return "a far address does not fit here";
      return placeFar(b, given);
  }
}

const classOf: Partial<Record<OperandSpec["kind"], string>> = {
  S: "seg",
  C: "cr",
  D: "dr",
  P: "mm",
  Q: "mm",
  N: "mm",
  V: "xmm",
  W: "xmm",
  U: "xmm",
};
const inRm = new Set(["E", "R", "Q", "N", "W", "U", "sti"]);
/** Keys whose 16-bit source may be written with a wider register's name. */
const wideSource = new Set(["lar", "lsl", "mov.sreg"]);

function placeRegister(b: Build, o: OperandSpec, r: RegisterOperand): string {
  const misfit = `${r.name} does not fit`;
  switch (o.kind) {
    case "st":
      return r.class === "st" && r.number === 0 ? "" : misfit;
    case "sti":
      if (r.class !== "st") return misfit;
      b.f.rm = r.number;
      return "";
    case "seg":
      return r.class === "seg" && r.number === o.register ? "" : misfit;
    case "xmm":
      return r.class === "xmm" && r.number === o.register ? "" : misfit;
    case "gpr":
      if (o.size === "v" || o.size === "z") b.tied = true;
      return r.class === "gpr" && r.number === o.register &&
          r.bits === 8 * sizeBytes(o.size, b.operandSize)
        ? ""
        : misfit;
  }
  const wanted = classOf[o.kind];
  if (wanted !== undefined) {
    if (r.class !== wanted) return misfit;
  } else {
    if (!"EGZR".includes(o.kind)) return misfit;
    const bits = 8 * sizeBytes(o.size, b.operandSize, b.s.mode);
    const wide = o.size === "w" && wideSource.has(b.e.key) && r.bits >= 16 &&
      r.bits <= b.operandSize;
    if ((r.class !== "gpr" && r.class !== "high") || (r.bits !== bits && !wide)) return misfit;
    if ("vzy".includes(o.size || "-")) b.tied = true;
    if (r.class === "high") b.high = true;
    if (r.needsRex) b.f.forceRex = true;
  }
  if (o.kind === "Z") b.f.opreg = r.number;
  else if (inRm.has(o.kind)) b.f.rm = r.number;
  else b.f.reg = r.number;
  return "";
}

function placeMemory(b: Build, o: OperandSpec, m: MemoryOperand): string {
  if ("XYB".includes(o.kind)) return placeString(b, o, m);
  if (!"EMQWO".includes(o.kind)) return "memory does not fit";
  const bytes = sizeBytes(o.memorySize, b.operandSize, b.s.mode);
  const isFar = b.e.key.endsWith(".far");
  if (isFar ? !m.far && m.bytes !== 6 : m.far && o.memorySize !== "p") {
    return "the far memory operand does not fit";
  }
  const open = ["", "e", "f", "F", "s"].includes(o.memorySize);
  const farAlias = o.memorySize === "p" && b.operandSize === 64 && m.bytes === 6;
  if (m.bytes !== 0 && m.bytes !== bytes && !open && !farAlias) {
    return `a memory operand of ${m.bytes} bytes does not fit`;
  }
  b.memoryBytes = open ? 0 : bytes;
  if (m.bytes !== 0 && !open) b.tied = true;
  if (b.f.segmentOverride === undefined && m.segment >= 0) b.f.segmentOverride = m.segment;
  return o.kind === "O" ? placeOffset(b, m) : placeAddress(b, m);
}

function placeOffset(b: Build, m: MemoryOperand): string {
  if (m.base >= 0 || m.index >= 0 || m.ripRelative && b.s.mode === 64) {
    return "an absolute address is needed";
  }
  const value = m.displacement.value, mode = b.s.mode;
  const size = mode === 16 && value > 0xffffn ? 32 : mode;
  if (BigInt.asUintN(size, value) !== value) return `the address ${value} does not fit`;
  if (mode === 64 && b.s.mnemonic !== "movabs" && value < 1n << 31n) {
    return "a 32-bit displacement is enough";
  }
  b.f.memory = true;
  b.f.addressSize = size;
  b.f.displacement = Number(BigInt.asIntN(32, value));
  b.f.displacementHigh = Number(BigInt.asIntN(32, value >> 32n));
  if (b.f.segmentOverride === 3) b.f.segmentOverride = -1;
  return "";
}

function placeAddress(b: Build, m: MemoryOperand): string {
  const { f, s } = b, { value, relocatable } = m.displacement;
  let size = m.addressSize;
  if (size === 0) size = s.mode === 16 && value > 0xffffn ? 32 : s.mode;
  if (m.base < 0 && m.index < 0 && m.segment === 3) f.segmentOverride = -1;
  if (m.segment === SS && (m.base === 4 || m.base === 5)) f.segmentOverride = -1;
  f.memory = true;
  f.addressSize = size;
  f.base = m.base;
  f.index = m.index;
  f.scale = m.scale;
  if (m.ripRelative && s.mode === 64) {
    f.base = BASE_RIP;
    b.ripTarget = value;
    return "";
  }
  const signed = BigInt.asIntN(size === 16 ? 16 : 32, value);
  const fits = signed === value || (size < 64 && BigInt.asUintN(size, value) === value) ||
    (size === 64 && BigInt.asUintN(64, signed) === value);
  if (!fits) return `the displacement ${value} does not fit into ${size} bits`;
  f.displacement = Number(signed);
  if (relocatable && m.base >= 0 && m.base !== BASE_RIP) f.displacementBytes = size === 16 ? 2 : 4;
  return "";
}

const stringBase: Record<string, number> = { X: 6, Y: 7, B: 3 };

function placeString(b: Build, o: OperandSpec, m: MemoryOperand): string {
  if (m.base !== stringBase[o.kind] || m.index >= 0 || m.displacement.value !== 0n) {
    return "the string operand does not fit";
  }
  const bytes = sizeBytes(o.memorySize, b.operandSize);
  if (m.bytes !== 0 && m.bytes !== bytes) return "the string operand's width does not fit";
  if (b.f.addressSize !== undefined && b.f.addressSize !== m.addressSize) {
    return "the string operands differ in address size";
  }
  b.f.addressSize = m.addressSize;
  b.memoryBytes = bytes;
  if (m.bytes !== 0) b.tied = true;
  if (o.kind === "Y") return m.segment <= 0 ? "" : "the destination is always in ES";
  if (m.segment >= 0 && m.segment !== 3) b.f.segmentOverride = m.segment;
  return "";
}

function placeTarget(
  b: Build,
  o: OperandSpec,
  given: { value: { value: bigint }; distance: string },
): string {
  const short = o.size === "b";
  const hasNear = b.e.cc >= 0 || b.e.key === "jmp";
  if (short ? given.distance === "near" || (b.s.near && hasNear) : given.distance === "short") {
    return "the distance does not fit";
  }
  if (given.distance === "far") return "far needs selector:offset";
  b.target = given.value.value;
  return "";
}

function placeFar(
  b: Build,
  given: { selector: { value: bigint }; offset: { value: bigint }; bytes: number },
): string {
  const bits = b.operandSize === 16 ? 16 : 32;
  if (given.bytes !== 0 ? given.bytes * 8 !== bits : bits !== b.s.mode) {
    return `a ${bits}-bit far pointer does not fit`;
  }
  b.tied = true;
  const { value } = given.offset;
  if (BigInt.asUintN(bits, value) !== value) {
    return `offset ${value} does not fit into ${bits} bits`;
  }
  b.f.immediate = Number(BigInt.asIntN(32, value));
  b.f.immediate2 = Number(BigInt.asUintN(16, given.selector.value));
  return "";
}

function placeImmediate(
  b: Build,
  o: OperandSpec,
  given: { value: bigint; relocatable: boolean },
  bytes: number,
  immediates: number,
): string {
  const { value } = given;
  if (o.kind === "one") return value === 1n && !given.relocatable ? "" : "only 1 fits";
  if (o.kind !== "I") return "an immediate does not fit";
  const size = b.operandSize;
  const own = o.size === "b"
    ? 8
    : o.size === "w"
    ? 16
    : o.size === "v"
    ? size
    : size === 16
    ? 16
    : 32;
  if (bytes !== 0 && bytes * 8 !== own && bytes * 8 !== size) {
    return "the immediate's width does not fit";
  }
  if (bytes * 8 === size) b.tied = true;
  if (o.signed && own < size) {
    if (given.relocatable && o.size === "b") return "a label's width must not depend on its value";
    const extended = BigInt.asIntN(own, value);
    if (extended !== value && BigInt.asUintN(size, extended) !== value) {
      return `${value} does not fit into ${own} bits, sign-extended to ${size}`;
    }
  } else if (value < -(1n << BigInt(own - 1)) || value >= 1n << BigInt(own)) {
    return `${value} does not fit into ${own} bits`;
  }
  const low = Number(BigInt.asIntN(32, value));
  if (immediates > 0) b.f.immediate2 = low;
  else {
    b.f.immediate = low;
    b.f.immediateHigh = Number(BigInt.asIntN(32, value >> 32n));
  }
  return "";
}
