import type { Command } from "./command.ts";

export const why: Command = {
  name: "why",
  usage: "why",
  summary: "Why the last fault, exit or failed entry happened",
  help: `Names the check that failed, its operands, and its place in the manual.

API: vcpu.why()`,
  run(_, context) {
    const reason = context.vcpu().why();
    context.print(`${typeof reason === "string" ? reason : context.show(reason)}\n`);
  },
};
