import type { Command } from "./command.ts";
import { printStop } from "./format.ts";

export const continue_: Command = {
  name: "c",
  usage: "c",
  summary: "Continue until a breakpoint, the domain's end, or ctrl-C",
  help:
    `Lets the domain run. A breakpoint or the domain's end stops it; ctrl-C pauses it and keeps the
session. To let it run while you go on typing: go

API: dom.unpause(), and the stops of dom.break()`,
  async run(_, context) {
    printStop(await context.domain().continue(), context);
  },
};
