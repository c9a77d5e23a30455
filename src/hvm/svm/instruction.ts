/** What the hardware withholds of an exit: the guest's instruction, decoded from its memory. */
import { VMCB_ATTRIBUTE } from "../../abi/x86/vmcb.ts";
import { decode, DECODE_AS, DecodeStatus, Instruction } from "../../machine/isa/decode.ts";
import { type Wide, wide } from "../exit.ts";
import { readLinear } from "../guest_memory.ts";
import { GUEST, type SegmentRegister } from "../ops.ts";
import { gprOf } from "../registers.ts";
import { guestWord } from "../shadow.ts";
import { F, type SvmVcpu } from "./cpu.ts";
import { nestedOf } from "./paging.ts";
import { getControlRegister, is64 } from "./state.ts";

function readGuest(v: SvmVcpu, linear: bigint, length: number): Uint8Array {
  const paging = {
    cr0: getControlRegister(v, 0),
    cr3: getControlRegister(v, 3),
    cr4: getControlRegister(v, 4),
    efer: v.shadowed ? guestWord(v, GUEST.efer) : v.read64(F.efer),
  };
  return readLinear(nestedOf(v), paging, linear, length);
}

const SEGMENTS: readonly SegmentRegister[] = ["es", "cs", "ss", "ds", "fs", "gs"];

function linearOf(v: SvmVcpu, segment: number, offset: bigint): bigint {
  const long = is64(v), name = SEGMENTS[segment];
  const base = long && segment < 4 ? 0n : v.read64(F[`${name}Base`]);
  return BigInt.asUintN(long ? 64 : 32, base + offset);
}

/** The instruction at the guest's RIP, undefined if its bytes are none or cannot be read. */
export function instructionAt(v: SvmVcpu): Instruction | undefined {
  const bytes = readGuest(v, linearOf(v, 1, v.read64(F.rip)), 15), out = new Instruction();
  const mode = is64(v) ? 64 : v.read16(F.csAttributes) & VMCB_ATTRIBUTE.big ? 32 : 16;
  return decode(bytes, 0, bytes.length, mode, out, DECODE_AS.amd) === DecodeStatus.Ok
    ? out
    : undefined;
}

/** A 16-bit source operand, register or memory. */
export function sourceWord(v: SvmVcpu, instruction: Instruction): number {
  if (!instruction.memory) return registerOf(v, instruction.rm).low & 0xffff;
  const { base, index, scale, displacement, length, addressSize, segment } = instruction;
  const register = (n: number): bigint => {
    if (n < 0) return 0n;
    if (n === 16) return v.read64(F.rip) + BigInt(length);
    const { low, high } = registerOf(v, n);
    return BigInt(high) << 32n | BigInt(low);
  };
  const sum = register(base) + (register(index) << BigInt(scale)) + BigInt(displacement);
  const linear = linearOf(v, segment, BigInt.asUintN(addressSize, sum));
  const [low = 0, high = 0] = readGuest(v, linear, 2);
  return low | high << 8;
}

/** A general register by number; RSP lies in the VMCB. */
export function registerOf(v: SvmVcpu, n: number): Wide {
  return n === 4 ? wide(v.read(F.rsp), v.readHigh(F.rsp)) : gprOf(v, n);
}
