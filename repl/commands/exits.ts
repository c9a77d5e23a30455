import type { Command } from "./command.ts";

export const exits: Command = {
  name: "exits",
  usage: "exits",
  summary: "Exits by kind, counted",
  help: `How often the domain left its processor, by kind.

API: dom.exits`,
  run(_, context) {
    context.print(`${context.show(context.domain().exits)}\n`);
  },
};
