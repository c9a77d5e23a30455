/**
 * The disassembler: Intel syntax as binutils' `objdump -M intel` prints it, from the encoding
 * table.
 * @module
 */
import { DS, gpr16, gpr32, gpr64, gpr8, gpr8rex, segments } from "../../abi/x86/registers.ts";
import { BASE_RIP, decode, DECODE_AS, DecodeStatus, Instruction } from "./decode.ts";
import type { Encoding } from "./encodings.ts";
import type { OperandSpec, SizeCode } from "./operands.ts";

/** One line of disassembly. */
export interface Disassembly {
  /** Bytes taken, at least 1. */
  readonly length: number;
  /** Mnemonic and operands; "(bad)" if there is no instruction. */
  readonly text: string;
  /** The bytes taken, a view. */
  readonly bytes: Uint8Array;
}

/** Names an address for the reader ("start_kernel+0x12"), or returns undefined. */
export type AddressNamer = (address: bigint) => string | undefined;

const scratch = new Instruction();

/**
 * Disassembles the instruction at `bytes[offset]`.
 * @param mode width of the code segment: 16, 32 or 64
 * @param address linear address (or offset in the segment) of the instruction, for branch targets
 * @param symbols names for branch targets and absolute addresses
 * @param as bits of DECODE_AS: whose processor reads the bytes; UD0 and UD1 are shown whole
 */
export function disassemble(
  bytes: Uint8Array,
  offset: number,
  mode: 16 | 32 | 64,
  address: bigint,
  symbols?: AddressNamer,
  as = 0,
): Disassembly {
  const whole = as & ~DECODE_AS.shortUndefined;
  const status = decode(bytes, offset, bytes.length, mode, scratch, whole);
  if (status !== DecodeStatus.Ok && status !== DecodeStatus.LockUndefined) {
    return { length: 1, text: "(bad)", bytes: bytes.subarray(offset, offset + 1) };
  }
  const text = format(bytes, offset, mode, scratch, address, symbols);
  const end = offset + scratch.length;
  return { length: scratch.length, text, bytes: bytes.subarray(offset, end) };
}

/** What is printed, and which prefixes that explains. */
interface Context {
  readonly x: Instruction;
  readonly mode: 16 | 32 | 64;
  readonly address: bigint;
  readonly symbols?: AddressNamer;
  /** The SIB byte or -1. */
  readonly sib: number;
  /** The last segment-override byte's segment, or -1 (in 64-bit mode FS and GS only). */
  usedOperandPrefix: boolean;
  usedAddressPrefix: boolean;
  usedSegment: boolean;
  /** REX bits the output accounts for. */
  rexUsed: number;
  comment: string;
}

function format(
  bytes: Uint8Array,
  offset: number,
  mode: 16 | 32 | 64,
  x: Instruction,
  address: bigint,
  symbols?: AddressNamer,
): string {
  const prefixes = scanPrefixes(bytes, offset, mode);
  const e = x.encoding;
  const modrmAt = offset + prefixes.length + (e.map === 0 ? 1 : e.map === 1 ? 2 : 3);
  const hasSib = x.memory && e.hasModrm && x.addressSize !== 16 && (x.modrm & 7) === 4;
  const c: Context = {
    x,
    mode,
    address,
    symbols,
    sib: hasSib ? bytes[modrmAt + 1] : -1,
    usedOperandPrefix: e.prefix === "66",
    usedAddressPrefix: false,
    usedSegment: false,
    rexUsed: e.rexw ? 8 : 0,
    comment: "",
  };
  const name = mnemonic(c);
  const shown = name === e.mnemonic || !comparison.has(e.mnemonic)
    ? e.operands
    : e.operands.slice(0, 2);
  const operands = shown.map((o) => operand(c, o)).join(",");
  const before = unusedPrefixes(c, prefixes);
  const line = operands === "" ? name : `${name.padEnd(6)} ${operands}`;
  return before + line + c.comment;
}

/** The prefix bytes before the opcode. */
function scanPrefixes(bytes: Uint8Array, offset: number, mode: number): number[] {
  const out: number[] = [];
  for (;; offset++) {
    const b = bytes[offset];
    const legacy = b === 0x66 || b === 0x67 || b === 0xf0 || b === 0xf2 || b === 0xf3 ||
      (b & 0xe7) === 0x26 || b === 0x64 || b === 0x65;
    if (!legacy && !(mode === 64 && (b & 0xf0) === 0x40)) return out;
    out.push(b);
  }
}

/** Keys whose mnemonic takes a width suffix when 66 changes their size and no operand shows it. */
const suffixed = new Set(
  ("pusha popa pushf popf push.sreg pop.sreg ret ret.far iret enter leave fldenv fnstenv frstor " +
    "fnsave").split(" "),
);
const descriptorTable = new Set(["sgdt", "sidt", "lgdt", "lidt"]);
const bySize: Record<string, [string, string, string]> = {
  cbw: ["cbw", "cwde", "cdqe"],
  cwd: ["cwd", "cdq", "cqo"],
};
const comparison = new Set(["cmpps", "cmppd", "cmpss", "cmpsd"]);
const predicates = ["eq", "lt", "le", "unord", "neq", "nlt", "nle", "ord"];

function mnemonic(c: Context): string {
  const { x, mode } = c, e = x.encoding, key = e.key;
  if (comparison.has(key) && x.immediate >= 0 && x.immediate < 8) {
    return "cmp" + predicates[x.immediate] + key.slice(3);
  }
  if (e.operands.some((o) => o.kind === "O") && x.addressSize === 64) return "movabs";
  if (e.operands[1]?.text === "Iv" && x.operandSize === 64) return "movabs";
  const sized = bySize[key];
  if (sized) {
    sizeMatters(c);
    return sized[x.operandSize === 16 ? 0 : x.operandSize === 32 ? 1 : 2];
  }
  if (key === "jcxz") {
    c.usedAddressPrefix = true;
    return x.addressSize === 16 ? "jcxz" : x.addressSize === 32 ? "jecxz" : "jrcxz";
  }
  if (descriptorTable.has(key) && mode !== 64) {
    c.usedOperandPrefix = true;
    return e.mnemonic + (x.operandSize === 16 ? "w" : "d");
  }
  if (e.byte === 0x90 && e.key === "nop" && mode !== 64 && x.operandSize !== mode) {
    c.usedOperandPrefix = true;
    return x.operandSize === 16 ? "xchg   ax,ax" : "xchg   eax,eax";
  }
  if (e.byte === 0x90 && e.key === "nop" && mode === 64 && x.operandSize === 16) {
    c.usedOperandPrefix = true;
    return "xchg   ax,ax";
  }
  if (mode === 64 && (key === "sysret" || key === "sysexit")) {
    c.rexUsed |= 8;
    return e.mnemonic + (x.operandSize === 64 ? "q" : "d");
  }
  if (mode === 64 && (key === "ret.far" || key === "iret") && x.operandSize === 64) {
    c.rexUsed |= 8;
    return e.mnemonic + "q";
  }
  const immediatePush = key === "push" && e.operands[0].kind === "I";
  const relative = e.operands.length === 1 && e.operands[0].text === "Jz" && e.cc < 0;
  if (suffixed.has(key) || immediatePush || relative) {
    // In 64-bit mode 66 does nothing to near branches.
    if (mode === 64 && e.attributes.near) return e.mnemonic;
    const usual = mode === 16 ? 16 : mode === 32 ? 32 : x.operandSize === 16 ? 64 : x.operandSize;
    if (x.operandSize !== usual) {
      c.usedOperandPrefix = true;
      return e.mnemonic + (x.operandSize === 16 ? "w" : "d");
    }
  }
  return e.mnemonic;
}

/** The output shows the operand size. */
function sizeMatters(c: Context): void {
  const a = c.x.encoding.attributes;
  if ((c.x.rex & 8) !== 0 && !a.f64 && !a.d64) c.rexUsed |= 8;
  if (!(c.mode === 64 && (a.f64 || (c.x.rex & 8) !== 0))) c.usedOperandPrefix = true;
}

const pointerNames: Partial<Record<SizeCode, string>> = {
  b: "BYTE",
  w: "WORD",
  d: "DWORD",
  q: "QWORD",
  t: "TBYTE",
  x: "XMMWORD",
};
const pointerByOperand: Partial<Record<SizeCode, [string, string, string]>> = {
  v: ["WORD", "DWORD", "QWORD"],
  z: ["WORD", "DWORD", "DWORD"],
  y: ["DWORD", "DWORD", "QWORD"],
  p: ["DWORD", "FWORD", "FWORD"],
  a: ["DWORD", "QWORD", "QWORD"],
};
const bare = new Set(["lddqu", "invpcid"]);
const octoword = new Set(["cmpxchg16b", "invept", "invvpid"]);

function pointer(c: Context, size: SizeCode): string {
  const e: Encoding = c.x.encoding;
  if (bare.has(e.key)) return "";
  const fixed = pointerNames[size];
  if (fixed) return size === "x" && octoword.has(e.key) ? "OWORD PTR " : fixed + " PTR ";
  const row = pointerByOperand[size];
  if (!row) {
    if (size === "e" || size === "f") c.usedOperandPrefix = true;
    return "";
  }
  if (size === "y") {
    if (c.x.operandSize === 64 && !e.attributes.f64) c.rexUsed |= c.x.rex & 8;
  } else if (size === "z") c.usedOperandPrefix = true;
  else if (size === "p" && e.key.endsWith(".far")) c.usedOperandPrefix = true;
  else sizeMatters(c);
  return row[c.x.operandSize === 16 ? 0 : c.x.operandSize === 32 ? 1 : 2] + " PTR ";
}

function gprName(c: Context, number: number, size: SizeCode): string {
  const { x } = c;
  switch (size) {
    case "b":
      if (x.rex !== 0 && number >= 4) c.rexUsed |= 0x40;
      return x.rex !== 0 ? gpr8rex[number] : gpr8[number & 7];
    case "w":
      return gpr16[number];
    case "d":
      return gpr32[number];
    case "q":
      return gpr64[number];
    case "y":
      if (x.operandSize === 64 && !x.encoding.attributes.f64) c.rexUsed |= x.rex & 8;
      return x.operandSize === 64 ? gpr64[number] : gpr32[number];
    case "z":
      c.usedOperandPrefix = true;
      return x.operandSize === 16 ? gpr16[number] : gpr32[number];
    default:
      sizeMatters(c);
      return x.operandSize === 16
        ? gpr16[number]
        : x.operandSize === 32
        ? gpr32[number]
        : gpr64[number];
  }
}

const hex = (n: number | bigint): string => "0x" + n.toString(16);

function wide(low: number, high: number): bigint {
  return BigInt.asUintN(64, BigInt(high) << 32n | BigInt(low >>> 0));
}

/** Keys whose 16-bit source prints with the operand size's name when it is a register. */
const wideSource = new Set(["lar", "lsl", "mov.sreg"]);

function operand(c: Context, o: OperandSpec): string {
  const { x } = c;
  switch (o.kind) {
    case "E":
    case "M":
    case "R":
    case "Q":
    case "N":
    case "W":
    case "U":
      return x.memory ? memory(c, o.memorySize) : rmRegister(c, o);
    case "G":
      c.rexUsed |= x.rex & 4;
      return gprName(c, x.reg, o.size);
    case "Z":
      c.rexUsed |= x.rex & 1;
      return gprName(c, x.opreg, o.size);
    case "gpr":
      return gprName(c, o.register, o.size);
    case "P":
      return "mm" + (x.reg & 7);
    case "V":
      c.rexUsed |= x.rex & 4;
      return "xmm" + x.reg;
    case "xmm":
      return "xmm" + o.register;
    case "S":
      return segments[x.reg & 7] ?? "?";
    case "seg":
      return segments[o.register];
    case "C":
      c.rexUsed |= x.rex & 4;
      return "cr" + x.reg;
    case "D":
      c.rexUsed |= x.rex & 4;
      return "dr" + x.reg;
    case "st":
      return "st";
    case "sti":
      return `st(${x.rm & 7})`;
    case "one":
      return "1";
    case "I":
      return immediate(c, o);
    case "J":
      return target(c, o);
    case "A":
      sizeMatters(c);
      return `${hex(x.immediate2)}:${hex(x.immediate >>> 0)}`;
    case "O":
      return absolute(c);
    case "X":
    case "Y":
    case "B":
      return stringOperand(c, o);
  }
}

function rmRegister(c: Context, o: OperandSpec): string {
  const { x } = c;
  if (o.kind === "Q" || o.kind === "N") return "mm" + (x.rm & 7);
  c.rexUsed |= x.rex & 1;
  if (o.kind === "W" || o.kind === "U") return "xmm" + x.rm;
  const size = o.size === "w" && wideSource.has(x.encoding.key) ? "v" : o.size;
  return gprName(c, x.rm, size);
}

function immediate(c: Context, o: OperandSpec): string {
  const { x } = c;
  if (o.size === "b" && !o.signed) {
    return hex(
      (o === x.encoding.operands[1] &&
          x.encoding.key === "enter"
        ? x.immediate2
        : x.immediate) & 0xff,
    );
  }
  if (o.size === "w") return hex(x.immediate & 0xffff);
  sizeMatters(c);
  if (x.operandSize === 16) return hex(x.immediate & 0xffff);
  if (x.operandSize === 32) return hex(x.immediate >>> 0);
  return hex(wide(x.immediate, x.immediateHigh));
}

/** The target of a relative branch. */
function branchTarget(x: Instruction, mode: number, address: bigint): bigint {
  const next = address + BigInt(x.length), to = next + BigInt(x.immediate);
  if (mode === 64) return BigInt.asUintN(64, to);
  if (x.operandSize === 32) return BigInt.asUintN(32, to);
  // A flat 16-bit image may lie above 64 KB: there the target stays in its 64 KB.
  return (mode === 16 ? BigInt.asUintN(32, next) & ~0xffffn : 0n) | to & 0xffffn;
}

function target(c: Context, o: OperandSpec): string {
  if (o.size === "z") sizeMatters(c);
  const to = branchTarget(c.x, c.mode, c.address), name = c.symbols?.(to);
  return name === undefined ? hex(to) : `${hex(to)} <${name}>`;
}

function segmentPrefix(c: Context, otherwise: string): string {
  const s = c.x.segmentOverride;
  if (s === DS && isNotrack(c.x)) return otherwise;
  c.usedSegment = true;
  return s >= 0 ? segments[s] + ":" : otherwise;
}

/** With an indirect near branch, a DS override is CET's NOTRACK. */
function isNotrack(x: Instruction): boolean {
  const e = x.encoding;
  return (e.key === "call" || e.key === "jmp") && e.operands[0].kind === "E";
}

function absolute(c: Context): string {
  const { x } = c;
  const at = x.addressSize === 64
    ? wide(x.displacement, x.displacementHigh)
    : BigInt(x.displacement >>> 0);
  return segmentPrefix(c, "ds:") + hex(at) + named(c, at);
}

function named(c: Context, at: bigint): string {
  const name = c.symbols?.(at);
  return name === undefined ? "" : ` <${name}>`;
}

const indexNames = { 16: gpr16, 32: gpr32, 64: gpr64 };

function stringOperand(c: Context, o: OperandSpec): string {
  const names = indexNames[c.x.addressSize as 16 | 32 | 64];
  c.usedAddressPrefix = true;
  const size = pointer(c, o.memorySize);
  if (o.kind === "Y") return `${size}es:[${names[7]}]`;
  return `${size}${segmentPrefix(c, "ds:")}[${names[o.kind === "B" ? 3 : 6]}]`;
}

function memory(c: Context, size: SizeCode): string {
  const { x } = c;
  const start = pointer(c, size);
  c.usedAddressPrefix = true;
  if (x.addressSize === 16) return start + memory16(c);
  c.rexUsed |= x.rex & 1;
  if (c.sib >= 0) c.rexUsed |= x.rex & 2;
  return start + memory32(c);
}

function memory16(c: Context): string {
  const { x } = c;
  if (x.base < 0) {
    return segmentPrefix(c, "ds:") + hex(x.displacement & 0xffff) +
      named(c, BigInt(x.displacement & 0xffff));
  }
  let inner: string = gpr16[x.base];
  if (x.index >= 0) inner += "+" + gpr16[x.index];
  if (x.mod !== 0) inner += signed(x.displacement);
  return `${segmentPrefix(c, "")}[${inner}]`;
}

function signed(n: number): string {
  return n < 0 ? "-" + hex(-n) : "+" + hex(n);
}

function memory32(c: Context): string {
  const { x, mode } = c;
  const names = x.addressSize === 64 ? gpr64 : gpr32;
  const absoluteAddress = x.addressSize === 64
    ? wide(x.displacement, x.displacementHigh)
    : BigInt(x.displacement >>> 0);
  if (x.base === BASE_RIP) return ripRelative(c);
  const needIndex = c.sib >= 0 && x.base < 0 && x.index < 0 &&
    (mode === 64 ? x.addressSize === 32 : mode === 32);
  // With neither base nor index nothing shows the address size in 16-bit mode.
  if (mode === 16 && x.base < 0 && x.index < 0) c.usedAddressPrefix = false;
  const bracket = x.base >= 0 || needIndex || (c.sib >= 0 && (x.index >= 0 || x.scale !== 0));
  if (!bracket) {
    return segmentPrefix(c, "ds:") + hex(absoluteAddress) + named(c, absoluteAddress);
  }
  let inner: string = x.base >= 0 ? names[x.base] : "";
  if (
    c.sib >= 0 &&
    (x.scale !== 0 || needIndex || x.index >= 0 || (x.base >= 0 && (c.sib & 7) !== 4))
  ) {
    const none = x.addressSize === 64 ? "riz" : "eiz";
    if (x.base >= 0) inner += "+";
    inner += `${x.index >= 0 ? names[x.index] : none}*${1 << x.scale}`;
  }
  if (x.mod !== 0 || x.base < 0) {
    inner += signed(x.displacement);
    const name = c.symbols?.(absoluteAddress);
    if (name !== undefined && (x.displacement < 0 || x.displacement > 0xffff)) {
      c.comment = `        # ${hex(absoluteAddress)} <${name}>`;
    }
  }
  return `${segmentPrefix(c, "")}[${inner}]`;
}

function ripRelative(c: Context): string {
  const { x } = c;
  const shown = hex(wide(x.displacement, x.displacementHigh));
  const at = BigInt.asUintN(
    x.addressSize,
    c.address + BigInt(x.length) + BigInt(x.displacement),
  );
  c.comment = `        # ${hex(at)}${named(c, at)}`;
  return `${segmentPrefix(c, "")}[${x.addressSize === 64 ? "rip" : "eip"}+${shown}]`;
}

function rexName(rex: number): string {
  const bits = (rex & 8 ? "W" : "") + (rex & 4 ? "R" : "") + (rex & 2 ? "X" : "") +
    (rex & 1 ? "B" : "");
  return bits === "" ? "rex" : "rex." + bits;
}

/** The names, in order, of the prefixes that the instruction's own text does not show. */
function unusedPrefixes(c: Context, prefixes: number[]): string {
  const { x, mode } = c, e = x.encoding;
  const last = (test: (b: number) => boolean) => prefixes.findLastIndex(test);
  const hidden = new Set<number>();
  if (c.usedOperandPrefix) hidden.add(last((b) => b === 0x66));
  if (c.usedAddressPrefix) hidden.add(last((b) => b === 0x67));
  if (c.usedSegment && x.segmentOverride >= 0) {
    hidden.add(
      last((b) =>
        mode === 64 ? b === 0x64 || b === 0x65 : (b & 0xe7) === 0x26 || b === 0x64 || b === 0x65
      ),
    );
  }
  const defaultsToDs = e.operands.some((o) => o.kind === "X" || o.kind === "B");
  if (mode === 64 && defaultsToDs) hidden.add(last((b) => (b & 0xe7) === 0x26));
  const mandatory = e.prefix === "f2" || e.prefix === "f3";
  if (mandatory) hidden.add(last((b) => b === 0xf2 || b === 0xf3));
  if (x.rex !== 0 && prefixes.length > 0) {
    const used = c.rexUsed === 0 ? 0 : c.rexUsed | 0x40;
    if ((x.rex ^ used) === 0) hidden.add(prefixes.length - 1);
  }
  let out = "";
  prefixes.forEach((b, i) => {
    if (!hidden.has(i)) out += prefixName(b, mode, e) + " ";
  });
  return out;
}

function prefixName(b: number, mode: 16 | 32 | 64, e: Encoding): string {
  switch (b) {
    case 0x66:
      return mode === 16 ? "data32" : "data16";
    case 0x67:
      return mode === 32 ? "addr16" : "addr32";
    case 0xf0:
      return "lock";
    case 0xf2:
      return e.attributes.near && (e.attributes.flow !== "" || e.cc >= 0) ? "bnd" : "repnz";
    case 0xf3:
      return e.attributes.rep === "rep" ? "rep" : "repz";
  }
  if (b === 0x64) return "fs";
  if (b === 0x65) return "gs";
  if ((b & 0xf0) === 0x40) return rexName(b);
  if (b === 0x3e && isNotrack(scratch)) return "notrack";
  return segments[b >> 3 & 3];
}
