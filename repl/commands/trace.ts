import { exitEvents } from "../../src/debug/kinds.ts";
import type { Context } from "../context.ts";
import type { Command } from "./command.ts";
import { breakpointText } from "./format.ts";
import { wanted } from "./parse.ts";

export const trace: Command = {
  name: "trace",
  usage: "trace KIND [FILTER…] [if CONDITION]   trace ADDRESS",
  summary: "Print every exit of a kind, or each pass of an address, without stopping; bd ends it",
  help: `  trace msr
  trace cr cr=3 write

Kinds, of which .help KIND tells more: ${exitEvents.join(" ")}

API: dom.trace("msr", {}, (event) => …)`,
  async run(call, context) {
    const { kind, filter, condition } = await wanted(call, context);
    const action = (event: unknown) => context.print(`${eventLine(event, context)}\n`);
    const made = context.domain().trace(kind, filter, { ...condition, action });
    context.print(`trace ${made.id}: ${breakpointText(made, context)}\n`);
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
