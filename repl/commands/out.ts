import type { Command } from "./command.ts";
import { printStop } from "./format.ts";

export const out: Command = {
  name: "sout",
  usage: "sout",
  summary: "Run until the current function returns",
  help: `Runs until a return brings the stack above where it is now.

API: await vcpu.stepOut()`,
  async run(_, context) {
    printStop(await context.vcpu().stepOut(), context);
  },
};
