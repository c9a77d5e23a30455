/**
 * The encoder: the inverse of decode.ts, from the same table. `decode(encode(x))` gives `x` again.
 * @module
 */
import { RBP, RSP } from "../../abi/x86/registers.ts";
import { BASE_RIP, noEncoding } from "./decode.ts";
import type { Encoding } from "./encodings.ts";

/** What the encoder needs to know: the fields of `Instruction` that are not derived. */
export interface EncodeFields {
  /** 16, 32 or 64; default: the least prefixes. */
  operandSize?: number;
  /** 16, 32 or 64; default: the mode's width. */
  addressSize?: number;
  lock?: boolean;
  /** 0, 0xf2 or 0xf3, where it is not part of the opcode. */
  rep?: number;
  /** -1, or the override 0 to 5. */
  segmentOverride?: number;
  /** Emit a REX prefix even if no bit is set (SPL, BPL, SIL, DIL). */
  forceRex?: boolean;
  /** ModRM.reg, 0 to 15. */
  reg?: number;
  /** Register in ModRM.rm, 0 to 15, if `memory` is false. */
  rm?: number;
  /** Register in the opcode's low bits, 0 to 15. */
  opreg?: number;
  memory?: boolean;
  /** -1, 0 to 15 or `BASE_RIP`. */
  base?: number;
  index?: number;
  scale?: number;
  /** int32. */
  displacement?: number;
  /** High half of a 64-bit absolute offset. */
  displacementHigh?: number;
  /** Bytes of displacement: 1, 2 or 4; default: the fewest that hold it. */
  displacementBytes?: number;
  immediate?: number;
  immediateHigh?: number;
  immediate2?: number;
}

/** A blank record of fields with every number at its default. */
function field(n: number | undefined, otherwise: number): number {
  return n === undefined ? otherwise : n;
}

const memoryKinds = new Set(["E", "M", "Q", "W"]);

/**
 * The bytes of instruction `encoding` with `fields` in `mode`.
 * Throws a RangeError that says why if they cannot be encoded.
 */
export function encode(
  encoding: Encoding,
  fields: EncodeFields,
  mode: 16 | 32 | 64,
): Uint8Array {
  const e = encoding;
  if (e.id === noEncoding.id) throw new RangeError("no such instruction: nothing to encode");
  if (mode === 64 ? e.attributes.i64 : e.attributes.o64 || e.rexw) {
    throw new RangeError(`${e.mnemonic} (${e.opcode}) does not exist in ${mode}-bit mode`);
  }
  const size = sizePrefixes(e, fields.operandSize, mode);
  const out: number[] = [];
  const segment = field(fields.segmentOverride, -1);
  if (segment >= 0) out.push([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65][segment]);
  if (fields.lock) out.push(0xf0);
  if (fields.rep) out.push(fields.rep);
  const addressSize = field(fields.addressSize, mode);
  if (addressSize !== mode) {
    const other = mode === 16 ? 32 : mode === 32 ? 16 : 32;
    if (addressSize !== other) {
      throw new RangeError(`${addressSize}-bit addresses do not exist in ${mode}-bit mode`);
    }
    out.push(0x67);
  }
  if (size.operand16 || e.prefix === "66") out.push(0x66);
  if (e.prefix === "f2") out.push(0xf2);
  if (e.prefix === "f3") out.push(0xf3);
  const rex = rexByte(e, fields, size.wide);
  if (rex !== 0) {
    if (mode !== 64) {
      throw new RangeError(
        `registers 8 to 15, SPL, BPL, SIL, DIL need 64-bit mode, not ${mode}-bit`,
      );
    }
    out.push(rex);
  }
  if (e.map > 0) out.push(0x0f);
  if (e.map === 2) out.push(0x38);
  if (e.map === 3) out.push(0x3a);
  out.push(e.plusR ? e.byte + (field(fields.opreg, 0) & 7) : e.byte);
  if (e.hasModrm) modrmBytes(e, fields, addressSize, mode, out);
  immediateBytes(e, fields, size.operandSize, addressSize, out);
  if (out.length > 15) throw new RangeError(`${e.mnemonic}: ${out.length} bytes, at most 15`);
  return new Uint8Array(out);
}

/** Which of 66 and REX.W give the operand size asked for. */
function sizePrefixes(
  e: Encoding,
  wanted: number | undefined,
  mode: 16 | 32 | 64,
): { operandSize: number; operand16: boolean; wide: boolean } {
  const a = e.attributes, by66 = e.prefix === "66";
  const fail = () => new RangeError(`${e.mnemonic} (${e.opcode}) has no ${wanted}-bit form here`);
  if (mode !== 64) {
    const plain = by66 ? 48 - mode : mode;
    const operandSize = wanted ?? plain;
    if (operandSize === plain) return { operandSize, operand16: false, wide: false };
    if (operandSize !== 48 - plain || by66 || e.prefix === "np") throw fail();
    return { operandSize, operand16: true, wide: false };
  }
  const plain = a.f64 || e.rexw ? 64 : by66 ? 16 : a.d64 ? 64 : 32;
  const operandSize = wanted ?? plain;
  if (operandSize === plain) return { operandSize, operand16: false, wide: e.rexw };
  if (operandSize === 64) return { operandSize, operand16: false, wide: true };
  if (operandSize !== 16 || a.f64 || e.prefix === "np" || e.rexw) throw fail();
  return { operandSize, operand16: true, wide: false };
}

function rexByte(e: Encoding, f: EncodeFields, wide: boolean): number {
  let rex = wide ? 8 : 0;
  if (e.hasModrm) {
    rex |= field(f.reg, 0) >> 1 & 4;
    if (f.memory) {
      const base = field(f.base, -1), index = field(f.index, -1);
      if (base >= 8 && base < BASE_RIP) rex |= 1;
      if (index >= 8) rex |= 2;
    } else rex |= field(f.rm, 0) >> 3 & 1;
  }
  if (e.plusR) rex |= field(f.opreg, 0) >> 3 & 1;
  return rex !== 0 || f.forceRex ? 0x40 | rex : 0;
}

function modrmBytes(
  e: Encoding,
  f: EncodeFields,
  addressSize: number,
  mode: number,
  out: number[],
): void {
  if (e.modrm >= 0) {
    out.push(e.modrm);
    return;
  }
  const reg = (e.digit >= 0 ? e.digit : field(f.reg, 0) & 7) << 3;
  if (!f.memory) {
    if (e.attributes.form === "mem") throw new RangeError(`${e.mnemonic} needs a memory operand`);
    out.push(0xc0 | reg | field(f.rm, 0) & 7);
    return;
  }
  if (
    e.attributes.form === "reg" || e.attributes.nomod ||
    (!e.operands.some((o) => memoryKinds.has(o.kind)) && e.digit < 0)
  ) throw new RangeError(`${e.mnemonic} needs a register, not memory`);
  if (addressSize === 16) address16(f, reg, out);
  else address32(f, reg, mode, out);
}

// rm by base and index (SDM vol. 2A, table 2-1).
const rm16: Record<string, number> = {
  "3,6": 0,
  "3,7": 1,
  "5,6": 2,
  "5,7": 3,
  "6,-1": 4,
  "7,-1": 5,
  "5,-1": 6,
  "3,-1": 7,
};

function pushLittle(out: number[], value: number, bytes: number): void {
  for (let i = 0; i < bytes; i++) out.push(value >> 8 * i & 0xff);
}

const isByte = (n: number) => n === n << 24 >> 24;

function address16(f: EncodeFields, reg: number, out: number[]): void {
  const base = field(f.base, -1), displacement = field(f.displacement, 0) << 16 >> 16;
  if (base < 0) {
    out.push(reg | 6);
    pushLittle(out, displacement, 2);
    return;
  }
  const rm = rm16[`${base},${field(f.index, -1)}`];
  if (rm === undefined || field(f.scale, 0) !== 0) {
    throw new RangeError(
      "16-bit addresses are [bx+si], [bx+di], [bp+si], [bp+di], [si], [di], [bp], [bx] " +
        "with a displacement",
    );
  }
  const bytes = f.displacementBytes ??
    (displacement === 0 && rm !== 6 ? 0 : isByte(displacement) ? 1 : 2);
  out.push((bytes === 0 ? 0 : bytes === 1 ? 0x40 : 0x80) | reg | rm);
  pushLittle(out, displacement, bytes === 0 ? 0 : bytes === 1 ? 1 : 2);
}

function address32(f: EncodeFields, reg: number, mode: number, out: number[]): void {
  const base = field(f.base, -1), index = field(f.index, -1), scale = field(f.scale, 0);
  const displacement = field(f.displacement, 0);
  if (index === RSP) throw new RangeError("ESP and RSP cannot be an index");
  if (base === BASE_RIP || (base < 0 && index < 0 && scale === 0 && mode !== 64)) {
    if (base === BASE_RIP && (mode !== 64 || index >= 0)) {
      throw new RangeError("RIP-relative addresses exist in 64-bit mode only, without an index");
    }
    out.push(reg | 5);
    pushLittle(out, displacement, 4);
    return;
  }
  const sib = index >= 0 || base < 0 || (base & 7) === RSP || scale !== 0;
  const bytes = base < 0 ? 4 : f.displacementBytes ??
    (displacement === 0 && (base & 7) !== RBP ? 0 : isByte(displacement) ? 1 : 4);
  out.push(
    (base < 0 || bytes === 0 ? 0 : bytes === 1 ? 0x40 : 0x80) | reg | (sib ? 4 : base & 7),
  );
  if (sib) {
    out.push(scale << 6 | (index < 0 ? 4 : index & 7) << 3 | (base < 0 ? 5 : base & 7));
  }
  pushLittle(out, displacement, bytes);
}

function immediateBytes(
  e: Encoding,
  f: EncodeFields,
  operandSize: number,
  addressSize: number,
  out: number[],
): void {
  const z = operandSize === 16 ? 2 : 4;
  let second = false;
  for (const o of e.operands) {
    const value = field(second ? f.immediate2 : f.immediate, 0);
    if (o.kind === "I" || o.kind === "J") {
      const bytes = o.size === "b" ? 1 : o.size === "w" ? 2 : o.size === "v" ? operandSize >> 3 : z;
      pushLittle(out, value, Math.min(bytes, 4));
      if (bytes === 8) pushLittle(out, field(f.immediateHigh, 0), 4);
      second = true;
    } else if (o.kind === "A") {
      pushLittle(out, value, z);
      pushLittle(out, field(f.immediate2, 0), 2);
    } else if (o.kind === "O") {
      pushLittle(out, field(f.displacement, 0), Math.min(addressSize >> 3, 4));
      if (addressSize === 64) pushLittle(out, field(f.displacementHigh, 0), 4);
    }
  }
}
