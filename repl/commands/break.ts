import { exitEvents } from "../../src/debug/kinds.ts";
import { listBreakpoints } from "./breakpoints.ts";
import type { Command } from "./command.ts";
import { breakpointText } from "./format.ts";
import { wanted } from "./parse.ts";

export const break_: Command = {
  name: "b",
  usage: "b ADDRESS [if CONDITION]   b KIND [FILTER…] [if CONDITION]",
  summary: "Break at an address or symbol, or on a kind of VM exit",
  help:
    `A breakpoint stays until bd deletes it; with a condition (an expression of \`stop\`) it stops only
where that holds. Without arguments: the list, as bl.

  b start_kernel
  b 0xc0100000 if stop.regs.rax === 1n
  b timer vcpu=1                  of one vCPU; of all if none is named
  b cr cr=3 write                 every write of CR3
  b io port=0x3f8-0x3ff write     a range of ports
  b cpuid {leaf: 1}
  b #PF                           a vector: as b exception vector=14

Kinds, of which .help KIND tells more: ${exitEvents.join(" ")}

API: dom.break("cr", { cr: 3, write: true }, (stop) => …)`,
  async run(call, context) {
    if (call.words.length === 0) return listBreakpoints(context);
    const { kind, filter, condition } = await wanted(call, context);
    const made = context.domain().break(kind, filter, { ...condition });
    context.print(`breakpoint ${made.id}: ${breakpointText(made, context)}\n`);
  },
};
