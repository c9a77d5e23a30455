import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";
import { hex } from "./format.ts";
import { address } from "./parse.ts";

export const registers: Command = {
  name: "r",
  usage: "r   r NAME…   r NAME = VALUE",
  summary: "Show or set registers",
  help: `Shows all registers, or those named; or sets one.

  r
  r cr3 rip
  r rax = 0x10

API: vcpu.regs, vcpu.regs.rax = 0x10n`,
  async run({ words, rest }, context) {
    const vcpu = context.vcpu();
    const { regs } = vcpu;
    const known = (name: string) => {
      const found = name.replace(/^\$/, "").toLowerCase();
      if (typeof regs[found] === "bigint") return found;
      throw new CommandError(`r: there is no register ${name}`);
    };
    const set = rest.match(/^\$?(\w+)\s*=(?!=)\s*([^]+)$/);
    if (set) {
      const name = known(set[1]);
      regs[name] = await address(set[2], context);
      return context.print(`${name} = ${hex(regs[name], 32)}\n`);
    }
    if (words.length === 0) return context.print(`${context.show(regs)}\n`);
    for (const name of words.map(known)) context.print(`${name} = ${hex(regs[name], 32)}\n`);
  },
};
