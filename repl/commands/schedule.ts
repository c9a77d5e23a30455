import { CommandError, type Filter } from "../context.ts";
import type { Command } from "./command.ts";
import { count } from "./parse.ts";

export const schedule: Command = {
  name: "schedule",
  usage: "schedule [N] [vcpu=N] [domain=N] [processor=N]",
  summary: "The last turns: who ran where, how long, and why no longer",
  help:
    `The last 40 turns of the host's vCPUs, or N, the newest last: from which instruction of the host and
machine time on, on which processor, how many instructions the vCPU ran before another did, until what
(its length that the seed had picked; it waits; it woke another; a stop), and where it stood then. vcpu=1
shows those of vCPU 1 alone; an object literal may say the same: schedule 200 {vcpu: 1}.
Turns from before a state that was loaded are not known.

API: hv.schedule({ last, domain, vcpu, processor }); dom.vcpus shows where all of them stand now`,
  async run({ words }, context) {
    const host = context.hypervisor();
    if (!host?.schedule) throw new CommandError("schedule: there is no host");
    const which: Filter = {};
    for (const word of words) {
      const [, name, value] = word.match(/^([a-z]+)=(\d+)$/) ?? [];
      if (name) which[name] = Number(value);
      else if (word.startsWith("{")) Object.assign(which, await context.evaluate(`(${word})`));
      else which.last = count(word, 40, "schedule");
    }
    context.print(`${context.show(host.schedule(which))}\n`);
  },
};
