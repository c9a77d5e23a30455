import { CommandError } from "../context.ts";
import { reasonOf } from "../files.ts";
import type { Command } from "./command.ts";

export const diff: Command = {
  name: "diff",
  usage: "diff FILE [FILE]",
  summary: "What differs between two saved states, or one and the present state",
  help:
    `States are what hv.save() gives; a file is written by Deno.writeFileSync("FILE", hv.save()).
A row for each field that differs, with both values: of chips, of a vCPU's registers by the manual's
names, of the scheduler; and for each guest frame, with the first bytes that differ.

  diff before.state
  diff one.state two.state

API: hv.diff(before), hv.diff(one, two).differences`,
  run({ words }, context) {
    const [one, other, ...more] = words;
    if (one === undefined || more.length) {
      throw new CommandError(`diff: one file or two are needed, got ${words.length}`);
    }
    const hypervisor = context.hypervisor();
    if (!hypervisor) throw new CommandError("diff: there is no hypervisor");
    const read = (file: string) => {
      try {
        return Deno.readFileSync(file);
      } catch (error) {
        throw new CommandError(`diff: cannot read ${file}: ${reasonOf(error)}`);
      }
    };
    const states = [one, ...(other === undefined ? [] : [other])].map(read);
    try {
      context.print(`${context.show(hypervisor.diff(states[0], states[1]))}\n`);
    } catch (error) {
      throw new CommandError(`diff: ${(error as Error).message}`);
    }
  },
};
