/**
 * Operands of the assembler's language: registers, memory, immediates, far pointers.
 * @module
 */
import {
  gpr16,
  gpr32,
  gpr64,
  gpr8,
  gpr8rex,
  RDI,
  RSI,
  RSP,
  segments,
} from "../../abi/x86/registers.ts";
import { BASE_RIP } from "./decode.ts";
import {
  AssembleError,
  type Cursor,
  expression,
  type Lookup,
  type Value,
} from "./encode_expression.ts";

/** Classes of register names. */
export type RegisterClass = "gpr" | "high" | "seg" | "cr" | "dr" | "mm" | "xmm" | "st";

/** A register named in the text. */
export interface RegisterOperand {
  readonly kind: "register";
  readonly class: RegisterClass;
  readonly number: number;
  /** Bits, for general registers. */
  readonly bits: number;
  /** SPL, BPL, SIL, DIL: needs a REX prefix. */
  readonly needsRex: boolean;
  readonly name: string;
}

/** A memory operand as written. */
export interface MemoryOperand {
  readonly kind: "memory";
  /** Bytes, 0 if not written. */
  readonly bytes: number;
  readonly far: boolean;
  readonly segment: number;
  /** 16, 32, 64, or 0 when no register tells. */
  readonly addressSize: number;
  readonly base: number;
  readonly index: number;
  readonly scale: number;
  readonly displacement: Value;
  /** A target address, to be made relative to the next instruction. */
  readonly ripRelative: boolean;
}

/** An immediate or a branch target. */
export interface ImmediateOperand {
  readonly kind: "immediate";
  readonly value: Value;
  /** Bytes as written (`byte 5`), or 0. */
  readonly bytes: number;
  readonly distance: "" | "short" | "near" | "far";
}

/** `selector:offset`. */
export interface FarOperand {
  readonly kind: "far";
  readonly selector: Value;
  readonly offset: Value;
  readonly bytes: number;
}

/** An operand as written. */
export type WrittenOperand = RegisterOperand | MemoryOperand | ImmediateOperand | FarOperand;

const registers = new Map<string, RegisterOperand>();

function add(name: string, cls: RegisterClass, number: number, bits = 0, needsRex = false): void {
  registers.set(name, { kind: "register", class: cls, number, bits, needsRex, name });
}
gpr64.forEach((n, i) => add(n, "gpr", i, 64));
gpr32.forEach((n, i) => add(n, "gpr", i, 32));
gpr16.forEach((n, i) => add(n, "gpr", i, 16));
gpr8rex.forEach((n, i) => add(n, "gpr", i, 8, i >= 4 && i < 8));
gpr8.forEach((n, i) => i < 4 || add(n, "high", i, 8));
segments.forEach((n, i) => add(n, "seg", i, 16));
for (let i = 0; i < 16; i++) {
  add("cr" + i, "cr", i);
  add("dr" + i, "dr", i);
  add("xmm" + i, "xmm", i);
  if (i < 8) {
    add("mm" + i, "mm", i);
    add("st" + i, "st", i);
  }
}
add("st", "st", 0);

/** The register of that name in any case, or undefined. */
function registerNamed(name: string): RegisterOperand | undefined {
  return registers.get(name.toLowerCase());
}

const sizeWords: Record<string, number> = {
  byte: 1,
  word: 2,
  dword: 4,
  fword: 6,
  qword: 8,
  tbyte: 10,
  tword: 10,
  oword: 16,
  xmmword: 16,
};

/** Reads one operand. */
export function parseOperand(c: Cursor, lookup: Lookup): WrittenOperand {
  let bytes = 0, distance: ImmediateOperand["distance"] = "";
  for (;;) {
    const word = c.peek()?.kind === "name" ? c.peek()!.text.toLowerCase() : "";
    if (sizeWords[word] !== undefined) bytes = sizeWords[word];
    else if (word === "short" || word === "near" || word === "far") distance = word;
    else if (word !== "ptr") break;
    c.at++;
  }
  const t = c.peek();
  if (t?.kind === "name") {
    const register = registerNamed(t.text);
    if (register?.class === "seg" && c.peek(1)?.text === ":") {
      c.at += 2;
      return memoryAfterSegment(c, lookup, bytes, distance === "far", register.number);
    }
    if (register) {
      c.at++;
      return register.class === "st" ? stackRegister(c, register) : register;
    }
  }
  if (c.take("[")) return memory(c, lookup, bytes, distance === "far", -1);
  const value = expression(c, lookup);
  if (c.take(":")) return { kind: "far", selector: value, offset: expression(c, lookup), bytes };
  return { kind: "immediate", value, bytes, distance };
}

/** `st(3)` beside `st3`. */
function stackRegister(c: Cursor, register: RegisterOperand): RegisterOperand {
  if (register.name !== "st" || !c.take("(")) return register;
  const t = c.peek();
  const number = t?.kind === "number" ? Number(t.value) : -1;
  if (number < 0 || number > 7) throw new AssembleError(`expected st(0) to st(7)`);
  c.at++;
  c.expect(")");
  return registers.get("st" + number)!;
}

function memoryAfterSegment(
  c: Cursor,
  lookup: Lookup,
  bytes: number,
  far: boolean,
  segment: number,
): MemoryOperand {
  if (c.take("[")) return memory(c, lookup, bytes, far, segment);
  // objdump's `ds:0x1234`
  return {
    kind: "memory",
    bytes,
    far,
    segment,
    addressSize: 0,
    base: -1,
    index: -1,
    scale: 0,
    displacement: expression(c, lookup),
    ripRelative: false,
  };
}

interface Parts {
  readonly registers: { number: number; scale: number; explicit: boolean }[];
  displacement: bigint;
  relocatable: boolean;
  addressSize: number;
  rip: boolean;
}

/** What is between brackets; the opening one is taken. */
function memory(
  c: Cursor,
  lookup: Lookup,
  bytes: number,
  far: boolean,
  segment: number,
): MemoryOperand {
  let mode: "" | "rel" | "abs" = "";
  if (c.takeName("rel")) mode = "rel";
  else if (c.takeName("abs")) mode = "abs";
  const first = c.peek();
  if (first?.kind === "name" && c.peek(1)?.text === ":") {
    const register = registerNamed(first.text);
    if (register?.class === "seg") {
      segment = register.number;
      c.at += 2;
    }
  }
  const p: Parts = {
    registers: [],
    displacement: 0n,
    relocatable: false,
    addressSize: 0,
    rip: false,
  };
  for (let sign = 1n;;) {
    term(c, lookup, p, sign);
    if (c.take("+")) sign = 1n;
    else if (c.take("-")) sign = -1n;
    else break;
  }
  c.expect("]");
  return finish(p, bytes, far, segment, mode);
}

/** One term of an address: a register, a scaled register, or a value. */
function term(c: Cursor, lookup: Lookup, p: Parts, sign: bigint): void {
  const t = c.peek();
  if (t?.kind === "name") {
    const name = t.text.toLowerCase();
    if (name === "rip" || name === "eip") {
      c.at++;
      p.rip = true;
      p.addressSize = name === "rip" ? 64 : 32;
      return;
    }
    const register = registerNamed(name);
    if (register || name === "eiz" || name === "riz") {
      c.at++;
      if (sign < 0n) throw new AssembleError(`a register cannot be subtracted in an address`);
      if (register && (register.class !== "gpr" || register.bits === 8)) {
        throw new AssembleError(`${name} cannot be part of an address`);
      }
      const bits = register?.bits ?? (name === "eiz" ? 32 : 64);
      if (p.addressSize !== 0 && p.addressSize !== bits) {
        throw new AssembleError(
          `an address cannot mix ${p.addressSize}- and ${bits}-bit registers`,
        );
      }
      p.addressSize = bits;
      const explicit = c.take("*"), scale = explicit ? scaleOf(expression(c, lookup, 5)) : 0;
      p.registers.push({ number: register?.number ?? -1, scale, explicit });
      return;
    }
  }
  const scaled = c.peek(2)?.kind === "name" && c.peek(1)?.text === "*"
    ? registerNamed(c.peek(2)!.text)
    : undefined;
  if (t?.kind === "number" && scaled?.class === "gpr" && sign > 0n) {
    c.at += 3;
    if (p.addressSize === 0) p.addressSize = scaled.bits;
    p.registers.push({ number: scaled.number, scale: scaleOf(t), explicit: true });
    return;
  }
  const value = expression(c, lookup, 5);
  p.displacement += sign * value.value;
  p.relocatable ||= value.relocatable;
}

function scaleOf(v: { value: bigint }): number {
  const scale = [1n, 2n, 4n, 8n].indexOf(v.value);
  if (scale < 0) throw new AssembleError(`an index is scaled by 1, 2, 4 or 8, not ${v.value}`);
  return scale;
}

function finish(
  p: Parts,
  bytes: number,
  far: boolean,
  segment: number,
  mode: "" | "rel" | "abs",
): MemoryOperand {
  const displacement = { value: p.displacement, relocatable: p.relocatable };
  const common = { kind: "memory" as const, bytes, far, segment, displacement };
  if (p.rip) {
    if (p.registers.length > 0) throw new AssembleError("RIP cannot be added to other registers");
    const { addressSize } = p;
    return { ...common, addressSize, base: BASE_RIP, index: -1, scale: 0, ripRelative: false };
  }
  let base = -1, index = -1, scale = 0;
  const [a, b, extra] = p.registers;
  if (extra) throw new AssembleError("an address has at most a base and an index");
  if (a && b) {
    const swap = a.explicit && !b.explicit || (p.addressSize === 16 && isIndex16(a.number)) ||
      (b.number === RSP && !b.explicit);
    const [x, y] = swap ? [b, a] : [a, b];
    if (x.scale !== 0) throw new AssembleError("only one register of an address can be scaled");
    base = x.number;
    index = y.number;
    scale = y.scale;
  } else if (a) {
    if (a.explicit && p.addressSize !== 16) {
      index = a.number;
      scale = a.scale;
    } else base = a.number;
  }
  const ripRelative = mode === "rel" ||
    (mode === "" && p.registers.length === 0 && p.relocatable);
  return { ...common, addressSize: p.addressSize, base, index, scale, ripRelative };
}

function isIndex16(n: number): boolean {
  return n === RSI || n === RDI;
}
