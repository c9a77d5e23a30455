import { CommandError, type Context } from "../context.ts";
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
      if (!predicate || predicate(event)) context.print(`${eventLine(event, context)}\n`);
    });
    context.print(`trace ${made.id}: ${kind} ${filterText(made.filter, context)}\n`);
  },
};

/** Guest time, and what happened, in one line. */
function eventLine(event: unknown, context: Context): string {
  const { describe, position } = event as {
    describe?: () => string;
    position?: { time: number };
  };
  if (!describe || !position) return context.show(event);
  return `${(position.time / 1e9).toFixed(9)} s  ${describe.call(event)}`;
}
