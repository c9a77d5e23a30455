import type { Command } from "./command.ts";
import { printStop } from "./format.ts";
import { count, stepHow } from "./parse.ts";

export const over: Command = {
  name: "so",
  usage: "so [N] [alone]",
  summary: "Execute one instruction, a call or REP as a whole; Enter repeats",
  help:
    `Executes one instruction; a call runs until it returns, a repeated string instruction to its end.

Other vCPUs of the domain run meanwhile; with alone they stand.

API: await vcpu.stepOver(), await vcpu.stepOver({ others: "stand" })`,
  repeat: "so",
  async run({ words, name }, context) {
    const { words: [n], how } = stepHow(words), vcpu = context.vcpu();
    for (let left = count(n, 1, name); left > 0; left--) {
      const stop = await vcpu.stepOver(how);
      if (left === 1 || stop.kind !== "step") return printStop(stop, context);
    }
  },
};
