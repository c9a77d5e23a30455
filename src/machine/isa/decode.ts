/**
 * The instruction decoder: bytes to one mutable {@linkcode Instruction}, from the encoding table.
 * Sources: Intel SDM vol. 2, chapter 2 (instruction format) and appendix A.
 * @module
 */
import { DS, FS, RBP, RBX, RDI, RSI, RSP, SS } from "../../abi/x86/registers.ts";
import { type Encoding, encodings } from "./encodings.ts";

/** Result of {@linkcode decode}. */
export const DecodeStatus = {
  /** `out` holds the instruction. */
  Ok: 0,
  /** The instruction runs past `limit`: fetch more bytes and decode again. */
  NeedMoreBytes: 1,
  /** No such instruction in this mode: #UD. */
  Undefined: 2,
  /** More than 15 bytes: #GP(0). */
  TooLong: 3,
  /** LOCK on an instruction that does not allow it, or on a register destination: #UD. */
  LockUndefined: 4,
} as const;
/** One of the values of {@linkcode DecodeStatus}. */
export type DecodeStatus = typeof DecodeStatus[keyof typeof DecodeStatus];

/** How bytes are read where processors differ (vendors.ts): bits of {@linkcode decode}'s last argument. */
export const DECODE_AS = {
  /** 66 makes the operand size of near branches 16 in 64-bit mode. */
  cutsBranches: 1,
  /** UD0 and UD1 end with their opcode. */
  shortUndefined: 2,
  /** LOCK MOV CR0 is MOV CR8. */
  lockCr8: 4,
  /** All of them, and none. */
  amd: 7,
  intel: 0,
} as const;

/** Number that stands for RIP in {@linkcode Instruction.base}. */
export const BASE_RIP = 16;

/** What an undecoded {@linkcode Instruction} has for its encoding. */
export const noEncoding: Encoding = {
  ...encodings[0],
  id: -1,
  key: "undefined",
  mnemonic: "(bad)",
};

/**
 * A decoded instruction. All numbers; `int32` means a JavaScript number from -2^31 to 2^31 - 1.
 * The decoder overwrites every field.
 */
export class Instruction {
  /** The row of the table; {@linkcode noEncoding} unless the status is Ok or LockUndefined. */
  encoding: Encoding = noEncoding;
  /** Bytes, 1 to 15; what was consumed if the status is not Ok. */
  length = 0;
  /** Effective operand size, 16, 32 or 64 bits. */
  operandSize = 32;
  /** Effective address size, 16, 32 or 64 bits. */
  addressSize = 32;
  lock = false;
  /** The last of F2 and F3 seen, else 0; also set where it is part of the opcode. */
  rep = 0;
  /** Effective segment of the memory operand, 0 to 5, after the default rules. */
  segment = DS;
  /** -1, or the override 0 to 5. In 64-bit mode only FS and GS count. */
  segmentOverride = -1;
  /** 0, or the REX prefix 0x40 to 0x4f. 0 means that byte registers 4 to 7 are AH, CH, DH, BH. */
  rex = 0;
  modrm = 0;
  mod = 0;
  /** ModRM.reg with REX.R. */
  reg = 0;
  /** ModRM.rm with REX.B: the register if `memory` is false. */
  rm = 0;
  /** Bits 2:0 of the opcode with REX.B. */
  opreg = 0;
  /** There is a memory operand by ModRM or absolute offset (string operands do not count). */
  memory = false;
  /** -1, 0 to 15, or {@linkcode BASE_RIP}. */
  base = -1;
  /** -1 or 0 to 15. */
  index = -1;
  /** Shift of the index, 0 to 3. */
  scale = 0;
  /** int32: low half of the sign-extended displacement or of the absolute offset. */
  displacement = 0;
  /** int32: high half of the same; 0 for an absolute offset of 16 or 32 bits. */
  displacementHigh = 0;
  /** int32: the immediate, branch displacement or far offset, extended as its row says. */
  immediate = 0;
  /** int32: high half of the immediate (its extension, except for MOV r64, imm64). */
  immediateHigh = 0;
  /** ENTER's level or the selector of a far pointer. */
  immediate2 = 0;
}

/** Whether byte register `number` of `x` is bits 15:8 (AH, CH, DH, BH) of register `number` - 4. */
export function isHighByte(x: Instruction, number: number): boolean {
  return x.rex === 0 && number >= 4 && number < 8;
}

// Per encoding, by id: how to read immediates, and the flags that decoding needs.
const enum Plan {
  None,
  Ib,
  Ibs,
  Iw,
  Iz,
  Iv,
  Jz,
  Offset,
  Far,
  Enter,
}
const LOCKABLE = 1, D64 = 2, F64 = 4, NOMOD = 8, NEAR = 16;
const plans = new Uint8Array(encodings.length), flags = new Uint8Array(encodings.length);

function planOf(e: Encoding): Plan {
  const texts = e.operands.filter((x) => "IJAO".includes(x.kind)).map((x) => x.text);
  switch (texts.join()) {
    case "":
      return Plan.None;
    case "Ib":
      return Plan.Ib;
    case "Ibs":
    case "Jb":
      return Plan.Ibs;
    case "Iw":
      return Plan.Iw;
    case "Iz":
      return Plan.Iz;
    case "Iv":
      return Plan.Iv;
    case "Jz":
      return Plan.Jz;
    case "Ob":
    case "Ov":
      return Plan.Offset;
    case "Ap":
      return Plan.Far;
    case "Iw,Ib":
      return Plan.Enter;
    default:
      throw new Error(`decoder: no rule for the immediates ${texts} of ${e.key} ${e.opcode}`);
  }
}

for (const e of encodings) {
  const a = e.attributes;
  plans[e.id] = planOf(e);
  flags[e.id] = (a.lock ? LOCKABLE : 0) | (a.d64 ? D64 : 0) | (a.f64 ? F64 : 0) |
    (a.nomod ? NOMOD : 0) | (a.near ? NEAR : 0);
}

// Rows by map and first byte, for building the selection blocks.
const rows: Encoding[][] = Array.from({ length: 1024 }, () => []);
for (const e of encodings) {
  for (let i = 0; i < (e.plusR ? 8 : 1); i++) rows[e.map * 256 + e.byte + i].push(e);
}

// A slot per mode, map and opcode byte: (index << 3) | kind.
const enum Slot {
  Unbuilt,
  /** One row, whatever the prefixes; no ModRM. */
  Row,
  /** Rows by prefix state; no ModRM. */
  Prefixes,
  /** One row, with ModRM. */
  ModrmRow,
  /** Rows by prefix state and ModRM class. */
  Modrm,
  Undefined,
}
// Prefix states: rep (none, F3, F2) * 4 + 66 * 2 + REX.W. ModRM classes: memory by reg, 0 to 7;
// register by reg and rm, 8 to 71.
const STATES = 12, CLASSES = 72;
const slots = new Int32Array(3 * 1024);
let blocks = new Int16Array(32768), blocksUsed = 0;

/** How well row `e` matches, -1 for not at all; the best of an opcode's rows is chosen. */
function score(e: Encoding, state: number, modrmClass: number): number {
  const rep = state >> 2, operand16 = (state & 2) !== 0;
  if (e.rexw && (state & 1) === 0) return -1;
  let points = e.rexw ? 1 : 0;
  if (!e.plusR) points += 2;
  switch (e.prefix) {
    case "np":
      if (rep !== 0 || operand16) return -1;
      points += 200;
      break;
    case "nf":
      if (rep !== 0) return -1;
      points += 200;
      break;
    case "66":
      if (rep !== 0 || !operand16) return -1;
      points += 300;
      break;
    case "f3":
      if (rep !== 1) return -1;
      points += 300;
      break;
    case "f2":
      if (rep !== 2) return -1;
      points += 300;
      break;
  }
  if (!e.hasModrm) return points;
  const memory = modrmClass < 8, reg = memory ? modrmClass : (modrmClass - 8) >> 3;
  if (e.digit >= 0 && e.digit !== reg) return -1;
  if (e.modrm >= 0 && (memory || e.modrm !== 0xc0 + modrmClass - 8)) return -1;
  if (e.attributes.form === (memory ? "reg" : "mem")) return -1;
  return points + (e.modrm >= 0 ? 80 : e.digit >= 0 ? 40 : 0) + (e.attributes.form ? 20 : 0);
}

function choose(candidates: Encoding[], state: number, modrmClass: number): number {
  let best = -1, id = -1;
  for (const e of candidates) {
    const points = score(e, state, modrmClass);
    if (points > best) best = points, id = e.id;
  }
  return id;
}

function buildSlot(slot: number): number {
  const mode64 = slot >= 2048;
  const candidates = rows[slot & 1023].filter((e) =>
    mode64 ? !e.attributes.i64 : !e.attributes.o64 && !e.rexw
  );
  if (candidates.length === 0) return slots[slot] = Slot.Undefined;
  const hasModrm = candidates[0].hasModrm;
  if (candidates.some((e) => e.hasModrm !== hasModrm)) {
    throw new Error(`encoding table: ${candidates[0].opcode} has rows with and without ModRM`);
  }
  const only = candidates[0];
  if (
    candidates.length === 1 && only.prefix === "any" && !only.rexw && only.digit < 0 &&
    only.modrm < 0 && only.attributes.form === ""
  ) return slots[slot] = only.id << 3 | (hasModrm ? Slot.ModrmRow : Slot.Row);
  const classes = hasModrm ? CLASSES : 1;
  if (blocksUsed + STATES * classes > blocks.length) {
    const larger = new Int16Array(blocks.length * 2);
    larger.set(blocks);
    blocks = larger;
  }
  const start = blocksUsed;
  for (let state = 0; state < STATES; state++) {
    for (let c = 0; c < classes; c++) blocks[blocksUsed++] = choose(candidates, state, c);
  }
  return slots[slot] = start << 3 | (hasModrm ? Slot.Modrm : Slot.Prefixes);
}

// Prefix bytes: 0 for an opcode byte, 1 + segment for overrides, then the rest.
const P_66 = 7, P_67 = 8, P_LOCK = 9, P_REP = 10, P_REX = 11;
const prefixClass = new Uint8Array(256);
[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65].forEach((byte, i) => prefixClass[byte] = 1 + i);
prefixClass[0x66] = P_66;
prefixClass[0x67] = P_67;
prefixClass[0xf0] = P_LOCK;
prefixClass[0xf2] = prefixClass[0xf3] = P_REP;
prefixClass.fill(P_REX, 0x40, 0x50);

const xchgR8 = encodings.find((e) => e.key === "xchg" && e.plusR)!;

/**
 * Decodes the instruction at `bytes[offset]`. Never throws and allocates nothing.
 * @param limit end of the bytes that may be read (exclusive)
 * @param mode code segment's width: 16 (also real and virtual-8086 mode), 32, or 64
 * @param out overwritten
 * @param as bits of {@linkcode DECODE_AS}
 */
export function decode(
  bytes: Uint8Array,
  offset: number,
  limit: number,
  mode: 16 | 32 | 64,
  out: Instruction,
  as = 0,
): DecodeStatus {
  const end = limit < offset + 15 ? limit : offset + 15;
  let at = offset, operand16 = 0, address = false, byte = 0;
  out.encoding = noEncoding;
  out.lock = false;
  out.rep = 0;
  out.segmentOverride = -1;
  out.rex = 0;
  for (;;) {
    if (at >= end) return short(out, at, offset, limit);
    byte = bytes[at++];
    const p = prefixClass[byte];
    if (p === 0) break;
    if (p === P_REX) {
      if (mode !== 64) break;
      out.rex = byte;
      continue;
    }
    out.rex = 0;
    if (p === P_66) operand16 = 2;
    else if (p === P_67) address = true;
    else if (p === P_LOCK) out.lock = true;
    else if (p === P_REP) out.rep = byte;
    else if (mode !== 64 || p > FS) out.segmentOverride = p - 1;
  }
  const rex = out.rex;
  out.addressSize = mode === 64 ? (address ? 32 : 64) : (mode === 32) === address ? 16 : 32;

  let slot = mode === 64 ? 2048 : mode === 32 ? 1024 : 0;
  if (byte === 0x0f) {
    if (at >= end) return short(out, at, offset, limit);
    byte = bytes[at++];
    slot += 256;
    if (byte === 0x38 || byte === 0x3a) {
      slot += byte === 0x38 ? 256 : 512;
      if (at >= end) return short(out, at, offset, limit);
      byte = bytes[at++];
    }
  }
  out.opreg = byte & 7 | (rex & 1) << 3;
  const chosen = slots[slot + byte] || buildSlot(slot + byte);
  let id = chosen >> 3;
  const kind = chosen & 7;
  const state = (out.rep === 0 ? 0 : out.rep === 0xf3 ? 4 : 8) | operand16 | rex >> 3 & 1;
  if (kind === Slot.Undefined) return undefinedAt(out, at, offset);
  if ((as & DECODE_AS.shortUndefined) !== 0 && isLongUndefined(slot, byte)) {
    return undefinedAt(out, at, offset);
  }
  if (kind === Slot.Prefixes) {
    id = blocks[id + state];
    // PAUSE stays what it is: tried on the host's processor.
    if (id >= 0 && byte === 0x90 && (rex & 1) !== 0 && encodings[id].key === "nop") id = xchgR8.id;
  } else if (kind >= Slot.ModrmRow) {
    if (at >= end) return short(out, at, offset, limit);
    const modrm = bytes[at++];
    out.modrm = modrm;
    out.mod = modrm >> 6;
    out.reg = modrm >> 3 & 7 | (rex & 4) << 1;
    out.rm = modrm & 7 | (rex & 1) << 3;
    if (kind === Slot.Modrm) {
      const c = modrm < 0xc0 ? modrm >> 3 & 7 : 8 + (modrm & 63);
      id = blocks[id + state * CLASSES + c];
    }
  }
  if (id < 0) {
    // All bytes of the operand are fetched before the instruction turns out to be none.
    if (kind >= Slot.ModrmRow && out.modrm < 0xc0) {
      const narrow = out.addressSize === 16;
      const after = narrow ? memory16(bytes, at, end, out) : memory32(bytes, at, end, mode, out);
      if (after < 0) return short(out, end, offset, limit);
    }
    return undefinedAt(out, at, offset);
  }
  const flag = flags[id];
  out.encoding = encodings[id];
  if (mode === 64) {
    const cut = (flag & NEAR) !== 0 && (as & DECODE_AS.cutsBranches) !== 0 && operand16 !== 0;
    out.operandSize = (flag & F64) !== 0 && !cut || (rex & 8) !== 0
      ? 64
      : operand16 !== 0
      ? 16
      : (flag & D64) !== 0
      ? 64
      : 32;
  } else out.operandSize = (mode === 32) === (operand16 !== 0) ? 16 : 32;

  if (kind >= Slot.ModrmRow && out.modrm < 0xc0 && (flag & NOMOD) === 0) {
    out.memory = true;
    at = out.addressSize === 16
      ? memory16(bytes, at, end, out)
      : memory32(bytes, at, end, mode, out);
    if (at < 0) return short(out, end, offset, limit);
  } else {
    if (kind < Slot.ModrmRow) {
      out.modrm =
        out.mod =
        out.reg =
        out.rm =
          0;
    }
    out.memory = false;
    out.base = out.index = -1;
    out.scale = 0;
    out.displacement = out.displacementHigh = 0;
    out.segment = out.segmentOverride < 0 ? DS : out.segmentOverride;
  }
  out.immediate = out.immediateHigh = out.immediate2 = 0;
  if (plans[id] !== Plan.None) {
    at = immediates(bytes, at, end, plans[id], out);
    if (at < 0) return short(out, end, offset, limit);
  }
  out.length = at - offset;
  if (!out.lock || (flag & LOCKABLE) !== 0 && out.memory) return DecodeStatus.Ok;
  if ((as & DECODE_AS.lockCr8) === 0 || out.encoding.key !== "mov.cr" || out.reg !== 0) {
    return DecodeStatus.LockUndefined;
  }
  out.lock = false;
  out.reg = 8;
  return DecodeStatus.Ok;
}

/** UD0 and UD1, which have ModRM. */
function isLongUndefined(slot: number, byte: number): boolean {
  return (slot & 1023) === 256 && (byte === 0xff || byte === 0xb9);
}

/** The bytes ended before the instruction did. */
function short(out: Instruction, at: number, offset: number, limit: number): DecodeStatus {
  out.encoding = noEncoding;
  out.length = at - offset;
  return limit >= offset + 15 ? DecodeStatus.TooLong : DecodeStatus.NeedMoreBytes;
}

function undefinedAt(out: Instruction, at: number, offset: number): DecodeStatus {
  out.encoding = noEncoding;
  out.length = at - offset;
  return DecodeStatus.Undefined;
}

function int16(bytes: Uint8Array, at: number): number {
  return (bytes[at] | bytes[at + 1] << 8) << 16 >> 16;
}

function int32(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24;
}

// 16-bit addressing by rm (SDM vol. 2A, table 2-1).
const base16 = [RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX];
const index16 = [RSI, RDI, RSI, RDI, -1, -1, -1, -1];

/** Reads what follows ModRM with 16-bit addressing; the position after it, or -1 if cut off. */
function memory16(bytes: Uint8Array, at: number, end: number, out: Instruction): number {
  const rm = out.modrm & 7;
  let base = base16[rm], displacement = 0;
  out.index = index16[rm];
  out.scale = 0;
  if (out.mod === 0 && rm === 6) base = -1;
  if (out.mod === 2 || base < 0) {
    if (at + 2 > end) return -1;
    displacement = int16(bytes, at);
    at += 2;
  } else if (out.mod === 1) {
    if (at >= end) return -1;
    displacement = bytes[at++] << 24 >> 24;
  }
  out.base = base;
  out.displacement = displacement;
  out.displacementHigh = displacement >> 31;
  out.segment = out.segmentOverride >= 0 ? out.segmentOverride : base === RBP ? SS : DS;
  return at;
}

/** The same for 32- and 64-bit addressing, with SIB and RIP-relative forms (tables 2-2, 2-3). */
function memory32(
  bytes: Uint8Array,
  at: number,
  end: number,
  mode: 16 | 32 | 64,
  out: Instruction,
): number {
  let base = out.rm, index = -1, scale = 0, displacement = 0, wide = out.mod === 2;
  if ((base & 7) === RSP) {
    if (at >= end) return -1;
    const sib = bytes[at++];
    scale = sib >> 6;
    index = sib >> 3 & 7 | (out.rex & 2) << 2;
    if (index === RSP) index = -1;
    base = sib & 7 | (out.rex & 1) << 3;
    if ((sib & 7) === RBP && out.mod === 0) base = -1, wide = true;
  } else if ((base & 7) === RBP && out.mod === 0) {
    base = mode === 64 ? BASE_RIP : -1;
    wide = true;
  }
  if (wide) {
    if (at + 4 > end) return -1;
    displacement = int32(bytes, at);
    at += 4;
  } else if (out.mod === 1) {
    if (at >= end) return -1;
    displacement = bytes[at++] << 24 >> 24;
  }
  out.base = base;
  out.index = index;
  out.scale = scale;
  out.displacement = displacement;
  out.displacementHigh = displacement >> 31;
  out.segment = out.segmentOverride >= 0
    ? out.segmentOverride
    : base === RSP || base === RBP
    ? SS
    : DS;
  return at;
}

/** Bytes of a `z` value. */
function zBytes(out: Instruction): number {
  return out.operandSize === 16 ? 2 : 4;
}

/** Reads the immediates; the position after them, or -1 if cut off. */
function immediates(
  bytes: Uint8Array,
  at: number,
  end: number,
  plan: Plan,
  out: Instruction,
): number {
  let size = 0;
  switch (plan) {
    case Plan.Ib:
    case Plan.Ibs:
      size = 1;
      break;
    case Plan.Iw:
      size = 2;
      break;
    case Plan.Iz:
    case Plan.Jz:
      size = zBytes(out);
      break;
    case Plan.Iv:
      size = out.operandSize >> 3;
      break;
    case Plan.Offset:
      size = out.addressSize >> 3;
      break;
    case Plan.Far:
      size = zBytes(out) + 2;
      break;
    case Plan.Enter:
      size = 3;
      break;
  }
  if (at + size > end) return -1;
  switch (plan) {
    case Plan.Ib:
      out.immediate = bytes[at];
      break;
    case Plan.Ibs:
      out.immediate = bytes[at] << 24 >> 24;
      break;
    case Plan.Iw:
      out.immediate = int16(bytes, at) & 0xffff;
      break;
    case Plan.Offset:
      out.memory = true;
      out.displacement = size === 2 ? int16(bytes, at) & 0xffff : int32(bytes, at);
      out.displacementHigh = size === 8 ? int32(bytes, at + 4) : 0;
      return at + size;
    case Plan.Far:
      out.immediate = size === 4 ? int16(bytes, at) & 0xffff : int32(bytes, at);
      out.immediate2 = int16(bytes, at + size - 2) & 0xffff;
      return at + size;
    case Plan.Enter:
      out.immediate = int16(bytes, at) & 0xffff;
      out.immediate2 = bytes[at + 2];
      return at + size;
    default:
      out.immediate = size === 2 ? int16(bytes, at) : int32(bytes, at);
  }
  out.immediateHigh = size === 8 ? int32(bytes, at + 4) : out.immediate >> 31;
  return at + size;
}
