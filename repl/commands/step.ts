import type { Command } from "./command.ts";
import { printStop } from "./format.ts";
import { count } from "./parse.ts";

export const step: Command = {
  name: "s",
  aliases: ["si"],
  usage: "s [N]",
  summary: "Execute one instruction, or N; Enter repeats",
  help:
    `Executes N instructions on the current vCPU, entering calls and handlers, and shows the next one.
A breakpoint, a VM exit that ends the domain, or ctrl-C stops it sooner.

API: await vcpu.step(N)`,
  repeat: "s",
  async run({ words, name }, context) {
    const stop = await context.vcpu().step(count(words[0], 1, name));
    printStop(stop, context);
  },
};
