import { CommandError } from "../context.ts";
import { reasonOf } from "../files.ts";
import type { Command } from "./command.ts";

export const load: Command = {
  name: ".load",
  usage: ".load FILE",
  summary: "Run a file of TypeScript as if it were typed here",
  help: `Its declarations stay. To import a module instead: import { name } from "./file.ts"`,
  async run({ rest }, context) {
    if (!rest) throw new CommandError(".load: a file is missing");
    let text: string;
    try {
      text = await Deno.readTextFile(rest);
    } catch (error) {
      throw new CommandError(`.load: cannot read ${rest}: ${reasonOf(error)}`);
    }
    return await context.runScript(text, rest);
  },
};
