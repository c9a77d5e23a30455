/** Nested page tables of SVM, and looks through them and the guest's at what the hardware withholds. */
import { decode, DECODE_AS, DecodeStatus, Instruction } from "../../machine/isa/decode.ts";
import { NESTED_KIND, NESTED_ROOT } from "../../machine/svm/layout.ts";
import { type Wide, wide } from "../exit.ts";
import { machineAddress, type Nested, nestedEntries, readLinear } from "../guest_memory.ts";
import { GUEST, type NestedFormat, type SegmentRegister } from "../ops.ts";
import { gprOf } from "../registers.ts";
import { guestWord } from "../shadow.ts";
import { F, type SvmVcpu } from "./cpu.ts";
import { getControlRegister, is64 } from "./state.ts";

const NX = 1n << 63n;
/** The tables are those of a host in long mode with no-execute pages, as this one is. */
const ROOT_FLAGS = NESTED_ROOT.inUse | NESTED_ROOT.nxe | NESTED_KIND.long << NESTED_ROOT.kindShift;

/**
 * Entries of nested page tables: those of the host's long mode, seen as user accesses (APM 2 15.25.5).
 * There is no right to read alone that could be withheld.
 */
export const nptFormat: NestedFormat = {
  table: (address) => BigInt(address) | 7n,
  page: (address, { read, write, execute }) =>
    read ? BigInt(address) | 5n | (write ? 2n : 0n) | (execute ? 0n : NX) : 0n,
  pointer: (root) => BigInt(root) | BigInt(ROOT_FLAGS),
  address: (entry) => entry & 1n ? Number(entry & 0x000f_ffff_ffff_f000n) : undefined,
};

/** The nested tables, if there are any: a shadowed guest has them for the emulator. */
function nestedOf(v: SvmVcpu): Nested {
  const has = v.shadowed || v.words[F.nestedControl >> 2] & 1;
  const root = has ? v.words[F.nestedCr3 >> 2] >>> 0 : undefined;
  return { memory: v.on.cpu.machine, format: nptFormat, root };
}

/** What the nested tables allow at a guest-physical address: bits 0 read, 1 write, 2 execute. */
export function nestedRights(v: SvmVcpu, gpa: number): number {
  return nestedEntries(nestedOf(v), gpa).reduce((rights, entry) => {
    const present = Number(entry & 1n), write = Number(entry & 2n);
    return rights & (present ? 1 | write | (entry & NX ? 0 : 4) : 0);
  }, 7);
}

/** Machine address of a guest-physical one; -1 without `bytes` there. */
export function guestMachine(v: SvmVcpu, gpa: number, bytes: number): number {
  return machineAddress(nestedOf(v), gpa, bytes);
}

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
  const mode = is64(v) ? 64 : v.read16(F.csAttributes) & 0x400 ? 32 : 16;
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
