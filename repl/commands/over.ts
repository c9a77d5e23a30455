import type { Command } from "./command.ts";
import { printStop } from "./format.ts";
import { count } from "./parse.ts";

export const over: Command = {
  name: "so",
  usage: "so [N]",
  summary: "Execute one instruction, a call or REP as a whole; Enter repeats",
  help:
    `Executes one instruction; a call runs until it returns, a repeated string instruction to its end.

API: await vcpu.stepOver()`,
  repeat: "so",
  async run({ words, name }, context) {
    for (let left = count(words[0], 1, name); left > 0; left--) {
      const stop = await context.vcpu().stepOver();
      if (left === 1 || stop.kind !== "step") return printStop(stop, context);
    }
  },
};
