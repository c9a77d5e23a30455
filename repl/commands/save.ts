import { counted } from "../../src/builder/errors.ts";
import { CommandError } from "../context.ts";
import { writeWhole } from "../files.ts";
import type { Command } from "./command.ts";

export const save: Command = {
  name: ".save",
  usage: ".save FILE",
  summary: "Write this session's inputs to a file",
  help:
    `One input after another, as typed; .load runs them again. Commands like this one are left out.`,
  run({ rest }, context) {
    if (!rest) throw new CommandError(".save: a file is missing");
    const inputs = context.inputs.filter((it) => it.trim());
    try {
      writeWhole(rest, inputs.map((it) => `${it}\n`).join(""));
    } catch (error) {
      throw new CommandError(`.save: ${(error as Error).message}`);
    }
    context.print(`${counted(inputs.length, "input")} written to ${rest}\n`);
  },
};
