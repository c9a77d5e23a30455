import type { Command } from "./command.ts";
import { printStop } from "./format.ts";

export const exitStep: Command = {
  name: "se",
  usage: "se",
  summary: "Run to the next VM exit; Enter repeats",
  help: `Runs until the current vCPU leaves the guest, for whatever reason, and shows that exit.

API: await vcpu.stepExit()`,
  repeat: "se",
  async run(_, context) {
    const { vcpus } = context.domain();
    const filter = vcpus.length > 1 ? { vcpu: context.vcpu().id } : {};
    printStop(await context.domain().until("any", filter), context);
  },
};
