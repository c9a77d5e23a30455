import type { Command } from "./command.ts";

export const attach: Command = {
  name: ".attach",
  usage: ".attach",
  summary: "Give the terminal to the guest's console; ctrl-] comes back",
  help:
    `The domain runs, and every key goes to it, ctrl-C too. ctrl-] leaves; the domain goes on running. The
prompt comes back by itself when the domain stops or ends.

API: dom.console.write("text"), dom.console.onOutput((text) => …)`,
  run: (_, context) => context.attach(context.domain()),
};
