import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";

const unavailable = (name: string) => () => {
  throw new CommandError(
    `${name}: going backwards is not available yet; it needs record and replay`,
  );
};

export const reverseStep: Command = {
  name: "rs",
  usage: "rs [N]",
  summary: "Step backwards (not available yet)",
  help: "Will undo one instruction, or N. It needs record and replay, which are not there yet.",
  run: unavailable("rs"),
};

export const reverseContinue: Command = {
  name: "rc",
  usage: "rc",
  summary: "Continue backwards (not available yet)",
  help: "Will go back to the last breakpoint. It needs record and replay, which are not there yet.",
  run: unavailable("rc"),
};
