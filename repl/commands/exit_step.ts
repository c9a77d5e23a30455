import type { Command } from "./command.ts";
import { printStop } from "./format.ts";

export const exitStep: Command = {
  name: "se",
  usage: "se",
  summary: "Run to the next VM exit; Enter repeats",
  help: `Runs until the processor leaves the guest, for whatever reason, and shows that exit.

API: await dom.until("any")`,
  repeat: "se",
  async run(_, context) {
    printStop(await context.domain().until("any", {}), context);
  },
};
