import { CommandError, type Context, type StopView } from "../context.ts";
import type { Command } from "./command.ts";
import { filterText } from "./format.ts";
import { listBreakpoints } from "./breakpoints.ts";
import { EXIT_KINDS } from "./kinds.ts";
import { address, filter } from "./parse.ts";

export const break_: Command = {
  name: "b",
  usage: "b ADDRESS [if CONDITION]   b KIND [FILTER…] [if CONDITION]",
  summary: "Break at an address or symbol, or on a kind of VM exit",
  help:
    `A breakpoint stays until bd deletes it; with a condition (an expression of \`stop\`) it stops only
where that holds. Without arguments: the list, as bl.

  b start_kernel
  b 0xc0100000 if stop.regs.rax === 1n
  b cr cr=3 write                 every write of CR3
  b io port=0x3f8 write
  b cpuid {leaf: 1}

Kinds: ${EXIT_KINDS.join(" ")}

API: dom.break("cr", { cr: 3, write: true }, (stop) => …)`,
  async run({ words, rest }, context) {
    if (words.length === 0) return listBreakpoints(context);
    const [first] = words;
    const tail = rest.slice(rest.indexOf(first) + first.length);
    const isKind = EXIT_KINDS.includes(first);
    const { filter: fields, predicate } = await filter(tail, context);
    if (!isKind && Object.keys(fields).length > 0) {
      throw new CommandError(
        `b: ${first} is taken for an address, and takes no filter; kinds of exits: ${
          EXIT_KINDS.join(" ")
        }`,
      );
    }
    const [kind, wanted] = isKind
      ? [first, fields]
      : ["execute", { address: await address(first, context) }];
    add(context, kind, wanted, predicate);
  },
};

function add(
  context: Context,
  kind: string,
  wanted: Record<string, unknown>,
  predicate?: (stop: StopView) => boolean,
): void {
  // An action that returns "continue" lets the guest go on, as everywhere in the API.
  const action = predicate && ((stop: StopView) => predicate(stop) ? undefined : "continue");
  const made = context.domain().break(kind, wanted, action);
  context.print(`breakpoint ${made.id}: ${kind} ${filterText(made.filter, context)}\n`);
}
