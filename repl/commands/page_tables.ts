import type { Command } from "./command.ts";
import { address } from "./parse.ts";

export const pageTables: Command = {
  name: "pt",
  usage: "pt ADDRESS   pt",
  summary: "Walk the page tables for an address; without one, the map of the address space",
  help:
    `Shows every level with its flags spelled out, of the guest's tables and of the nested or shadow
ones below. Looking sets no accessed bits.

  pt 0xc0100000
  pt

API: vcpu.pageTables.walk(address), vcpu.pageTables.map()`,
  async run({ rest }, context) {
    const { pageTables } = context.vcpu();
    const found = rest ? pageTables.walk(await address(rest, context)) : pageTables.map();
    context.print(`${context.show(found)}\n`);
  },
};
