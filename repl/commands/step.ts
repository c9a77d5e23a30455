import type { Command } from "./command.ts";
import { printStop } from "./format.ts";
import { count, stepHow } from "./parse.ts";

export const step: Command = {
  name: "s",
  aliases: ["si"],
  usage: "s [N] [alone]",
  summary: "Execute one instruction, or N; Enter repeats",
  help:
    `Executes N instructions on the current vCPU, entering calls and handlers, and shows the next one.
A breakpoint, a VM exit that ends the domain, or ctrl-C stops it sooner. Other vCPUs of the domain run
meanwhile; with alone they stand.

API: await vcpu.step(N), await vcpu.step(N, { others: "stand" })`,
  repeat: "s",
  async run({ words, name }, context) {
    const { words: [n], how } = stepHow(words);
    const stop = await context.vcpu().step(count(n, 1, name), how);
    printStop(stop, context);
  },
};
