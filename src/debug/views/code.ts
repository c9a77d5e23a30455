/**
 * Code as it stands in a guest's memory: disassembly, the next instruction, the calls that led to it.
 *
 * @module
 */
import { decode, DecodeStatus, Instruction } from "../../machine/isa/decode.ts";
import { disassemble } from "../../machine/isa/disassemble.ts";
import { featureOf } from "../../machine/features.ts";
import type { Attributes } from "../../machine/isa/encodings.ts";
import type { Address } from "../../hvm/fields.ts";
import { toAddress, toCount } from "../check.ts";
import { dim, hex, INSPECT, type InspectOptions } from "../values.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";
import { linearMemory } from "./spaces.ts";

/** One instruction of a disassembly. */
export interface Line {
  /** Linear address. */
  readonly address: bigint;
  /** Its bytes: 1 to 15. */
  readonly bytes: Uint8Array;
  /** Intel syntax, symbols in operands; "(bad)" where there is no instruction. */
  readonly text: string;
}

/** Lines of disassembly; prints as such. */
export class Listing extends Array<Line> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    return this.map((line) => lineText(line, options)).join("\n");
  }
}

/** A line of it. */
export function lineText({ address, bytes, text }: Line, options?: InspectOptions): string {
  const code = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(" ");
  return `${hex(address, address > 0xffff_ffffn ? 16 : 8)}:  ${
    dim(code.padEnd(24), options)
  } ${text}`;
}

/** One frame of a backtrace. */
export interface Frame {
  /** Where execution goes on in it. */
  readonly address: bigint;
  /** The symbol, if one is near: "start_kernel+0x12". */
  readonly symbol?: string;
}

/** Frames, the innermost first; prints as a backtrace. */
export class Backtrace extends Array<Frame> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** @ignore */
  [INSPECT](): string {
    return this.map(({ address, symbol }, i) =>
      `#${i}  ${hex(address, 8)}${symbol ? ` <${symbol}>` : ""}`
    ).join("\n");
  }
}

/** The most bytes an instruction has. */
const MAX_LENGTH = 15;

/** Bytes of code at a linear address, as many as can be read. */
function codeBytes(vcpu: VcpuSubject, address: bigint): Uint8Array {
  const memory = linearMemory(vcpu), inPage = 4096 - Number(address & 0xfffn);
  try {
    return memory.read(address, MAX_LENGTH);
  } catch (error) {
    if (inPage >= MAX_LENGTH) throw error;
    return memory.read(address, inPage);
  }
}

/**
 * `count` instructions from a linear address, or from the next instruction.
 *
 * @returns fewer lines, where memory ends
 * @throws {RangeError} if the first address is not mapped
 */
export function disassembly(vcpu: VcpuSubject, address?: Address, count = 10): Listing {
  const { domain, bits } = vcpu;
  let at = address === undefined
    ? vcpu.linearIp
    : toAddress(address, "linear address", domain.symbols);
  const symbols = (a: bigint) => domain.symbols?.format(a);
  const lines = new Listing(), base = vcpu.codeBase;
  const { decodeAs } = domain.host.machine.cpu;
  for (let n = toCount(count, "count", 1, 100_000); n > 0; n--) {
    let bytes: Uint8Array;
    try {
      bytes = codeBytes(vcpu, at);
    } catch (error) {
      if (lines.length === 0) throw error;
      break;
    }
    const d = disassemble(bytes, 0, bits, at - base, symbols, decodeAs);
    lines.push({ address: at, bytes: d.bytes.slice(), text: d.text });
    at = BigInt.asUintN(bits === 64 ? 64 : 32, at + BigInt(d.length));
  }
  return lines;
}

/** The instruction at a linear address; of the next one without an address. */
export const lineAt = (vcpu: VcpuSubject, address?: Address): Line =>
  disassembly(vcpu, address, 1)[0];

/** The instruction at a linear address in a line for a message: its place, and its text. */
export function lineOf(vcpu: VcpuSubject): string {
  try {
    const { address, text } = lineAt(vcpu);
    return `${vcpu.domain.place(address)}: ${text}`;
  } catch (error) {
    return `${hex(vcpu.file.get("rip")!)}: ${(error as Error).message}`;
  }
}

/** What stepping asks of an instruction. */
export interface NextInstruction {
  readonly flow: Attributes["flow"];
  readonly length: number;
  /** It is one instruction for several iterations. */
  readonly repeats: boolean;
  /** The feature that it is there by. */
  readonly feature: string | undefined;
}

const scratch = new Instruction();

/** The instruction at a linear address, the next one if none is given; undefined if there stands none. */
export function nextInstruction(
  vcpu: VcpuSubject,
  address: bigint = vcpu.linearIp,
): NextInstruction | undefined {
  const bytes = codeBytes(vcpu, address);
  const { decodeAs } = vcpu.domain.host.machine.cpu;
  const status = decode(bytes, 0, bytes.length, vcpu.bits, scratch, decodeAs);
  if (status !== DecodeStatus.Ok) return undefined;
  const { flow, rep } = scratch.encoding.attributes;
  return {
    flow,
    length: scratch.length,
    repeats: scratch.rep !== 0 && rep !== "",
    feature: featureOf(scratch.encoding),
  };
}

/**
 * The calls that led here, by saved frame pointers, the innermost first. It ends where a frame pointer
 * leads to no memory, or downwards.
 */
export function backtrace(vcpu: VcpuSubject, limit: number): Backtrace {
  toCount(limit, "limit");
  const { domain, bits, file } = vcpu;
  const size = bits / 8, memory = linearMemory(vcpu);
  const frames = new Backtrace();
  const add = (address: bigint) =>
    frames.push({ address, symbol: domain.symbols?.format(address) });
  add(vcpu.linearIp);
  let frame = BigInt.asUintN(bits, file.get("rbp")!);
  while (frames.length < limit && frame !== 0n) {
    let bytes: DataView;
    try {
      bytes = new DataView(memory.read(frame, 2 * size).buffer);
    } catch {
      break;
    }
    const word = (at: number) =>
      size === 8
        ? bytes.getBigUint64(at, true)
        : BigInt(size === 4 ? bytes.getUint32(at, true) : bytes.getUint16(at, true));
    if (word(size) === 0n) break;
    add(word(size));
    // Frames lie upwards on the stack.
    if (word(0) <= frame) break;
    frame = word(0);
  }
  return frames;
}
