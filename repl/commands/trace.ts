import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";
import { filterText } from "./format.ts";
import { EXIT_KINDS } from "./kinds.ts";
import { filter } from "./parse.ts";

export const trace: Command = {
  name: "trace",
  usage: "trace KIND [FILTER…] [if CONDITION]",
  summary: "Print every exit of a kind, without stopping; bd ends it",
  help: `  trace msr
  trace cr cr=3 write

Kinds: ${EXIT_KINDS.join(" ")}

API: dom.trace("msr", {}, (event) => …)`,
  async run({ words, rest }, context) {
    const [kind] = words;
    if (!kind || !EXIT_KINDS.includes(kind)) {
      throw new CommandError(
        `trace: ${kind ?? "nothing"} is no kind of exit; kinds: ${EXIT_KINDS.join(" ")}`,
      );
    }
    const { filter: fields, predicate } = await filter(rest.slice(kind.length), context);
    const made = context.domain().trace(kind, fields, (event) => {
      if (!predicate || predicate(event)) context.print(`${context.show(event)}\n`);
    });
    context.print(`trace ${made.id}: ${kind} ${filterText(made.filter, context)}\n`);
  },
};
