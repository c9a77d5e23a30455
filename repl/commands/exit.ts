import { count } from "./parse.ts";
import type { Command } from "./command.ts";

export const exit: Command = {
  name: ".exit",
  aliases: [".quit"],
  usage: ".exit [CODE]",
  summary: "End the session (also ctrl-D)",
  help: "Ends the domains and the session; CODE is the process's exit status.",
  run({ words }, context) {
    context.exit(words[0] === undefined || words[0] === "0" ? 0 : count(words[0], 0, ".exit"));
  },
};
