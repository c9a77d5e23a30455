import type { Command } from "./command.ts";

export const cpuid: Command = {
  name: "cpuid",
  usage: "cpuid [LEAF | CHANGE…]",
  summary: "What CPUID tells the guest: show it, change it",
  help: `The domain's CPUID as a table, one leaf of it with its features, or changes of it.

  cpuid
  cpuid 7
  cpuid rdrand=0 sse4.2=0
  cpuid 0x40000000.eax=0x40000001

A change holds from the guest's next CPUID on. Features that need one switched off go with it; what
this machine cannot do cannot be switched on.

API: dom.cpuid, dom.cpuid.set("rdrand", false), dom.cpuid.read(7)`,
  run({ rest }, context) {
    const table = context.domain().cpuid;
    if (rest.includes("=")) return table.edit(rest);
    context.print(`${rest ? table.text(rest) : context.show(table)}\n`);
  },
};
