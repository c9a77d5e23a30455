import type { Context } from "../context.ts";
import type { Command } from "./command.ts";
import { symbolAt, table } from "./format.ts";

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
    const { address } = it.filter;
    const symbol = typeof address === "bigint" ? symbolAt(address, context) : "";
    return [it.id, it.kind, it.hits, `${context.show(it.filter)} ${symbol}`.trim()];
  });
  context.print(
    rows.length ? `${table(["id", "kind", "hits", "filter"], rows)}\n` : "no breakpoints\n",
  );
}
