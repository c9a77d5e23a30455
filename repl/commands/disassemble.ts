import type { Command } from "./command.ts";
import { codeLines } from "./format.ts";
import { address, count } from "./parse.ts";

export const disassemble: Command = {
  name: "u",
  usage: "u [ADDRESS] [N]",
  summary: "Disassemble, from the current instruction if no address is given; Enter goes on",
  help:
    `Shows N instructions (10 if not given) in Intel syntax, with symbols; => marks the next to execute.

  u
  u start_kernel 20
  u rip-0x10

API: vcpu.disassemble(address, count)`,
  repeat: "u +",
  async run({ words }, context) {
    const vcpu = context.vcpu();
    const goOn = words[0] === "+" ? context.memory.get("u") as bigint | undefined : undefined;
    const from = goOn ??
      (words[0] && words[0] !== "+" ? await address(words[0], context) : undefined);
    const lines = vcpu.disassemble(from, count(words[1], 10, "u"));
    if (lines.length) context.print(codeLines(lines, vcpu, context));
    const last = lines.at(-1);
    if (last) context.memory.set("u", last.address + BigInt(last.bytes.length));
  },
};
