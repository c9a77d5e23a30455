import type { Context, VcpuView } from "../context.ts";
import type { Command } from "./command.ts";
import { hex, symbolAt } from "./format.ts";
import { count } from "./parse.ts";

export const backtrace: Command = {
  name: "bt",
  aliases: ["k"],
  usage: "bt [N]",
  summary: "The calls that led here, by frame pointers",
  help:
    `Follows saved frame pointers from RBP, at most N frames (32 if not given). Code compiled without
frame pointers ends the chain early, or misleads it; x/32a rsp then shows what on the stack looks like code.

API: vcpu.memory.read(vcpu.regs.rbp, 16)`,
  run({ words, name }, context) {
    const vcpu = context.vcpu();
    const limit = count(words[0], 32, name);
    const frames = framesOf(vcpu, limit, atEntry(vcpu, context));
    for (const [i, at] of frames.entries()) {
      context.print(
        `#${i}  ${hex(at, Math.max(32, vcpu.bits))} ${symbolAt(at, context)}`.trimEnd() + "\n",
      );
    }
    if (frames.length === 1) context.print(noChain(vcpu));
  },
};

/** Instruction addresses, the innermost first; ends where the chain does. */
export function framesOf(vcpu: VcpuView, limit: number, entry = false): bigint[] {
  const size = vcpu.bits === 64 ? 8 : vcpu.bits === 32 ? 4 : 2;
  const frames = [vcpu.regs.rip];
  // A function that has not set up its frame yet was called from what lies on top of the stack.
  if (entry && limit > 1) frames.push(topOfStack(vcpu, size));
  let frame = BigInt.asUintN(size * 8, vcpu.regs.rbp);
  while (frames.length < limit && frame !== 0n) {
    let bytes: Uint8Array;
    try {
      bytes = vcpu.memory.read(frame, size * 2);
    } catch {
      break; // the chain left what is mapped
    }
    const [next, caller] = [word(bytes, 0, size), word(bytes, size, size)];
    if (caller === 0n) break;
    frames.push(caller);
    if (next <= frame) break; // frames lie upwards on the stack
    frame = next;
  }
  return frames;
}

function atEntry(vcpu: VcpuView, context: Context): boolean {
  return context.domain().symbols?.nearest(vcpu.regs.rip)?.offset === 0n;
}

function topOfStack(vcpu: VcpuView, size: number): bigint {
  return word(vcpu.memory.read(BigInt.asUintN(size * 8, vcpu.regs.rsp), size), 0, size);
}

function word(bytes: Uint8Array, offset: number, size: number): bigint {
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[offset + i]);
  return value;
}

function noChain(vcpu: VcpuView): string {
  return `no frame chain from RBP ${hex(vcpu.regs.rbp, 32)}; try x/32a rsp\n`;
}
