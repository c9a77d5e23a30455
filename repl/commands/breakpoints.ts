import type { Context } from "../context.ts";
import type { Command } from "./command.ts";
import { filterText, table } from "./format.ts";

export const breakpoints: Command = {
  name: "bl",
  usage: "bl",
  summary: "List breakpoints, watchpoints and traces",
  help: `Lists them with how often each was hit.

API: dom.breakpoints`,
  run: (_, context) => listBreakpoints(context),
};

/** Prints the breakpoints of the current domain. */
export function listBreakpoints(context: Context): void {
  const rows = [...context.domain().breakpoints].map((it) => {
    const { id, traces, kind, hits, filter, condition = "", enabled } = it;
    const does = `${traces ? "trace" : "break"}${enabled === false ? ", off" : ""}`;
    return [id, does, kind, hits, filterText(filter, context), condition];
  });
  context.print(
    rows.length
      ? `${table(["id", "does", "kind", "hits", "filter", "condition"], rows)}\n`
      : "no breakpoints\n",
  );
}
