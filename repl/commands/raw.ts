import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";

export const raw: Command = {
  name: "vmcs",
  aliases: ["vmcb"],
  usage: "vmcs [TEXT]",
  summary: "The vendor's own record of the vCPU, every field named",
  help: `All fields of the VMCS (or the VMCB, on an AMD host), or those whose name contains TEXT.

  vmcs
  vmcs qualification

API: vcpu.raw`,
  run({ words: [text], name }, context) {
    const all = context.vcpu().raw;
    if (all === null || all === undefined) {
      throw new CommandError(`${name}: this domain runs on the bare processor and has none`);
    }
    if (!text) return context.print(`${context.show(all)}\n`);
    const found = context.show(all).split("\n").filter((line) =>
      line.split(/\s|:/)[0].toLowerCase().includes(text.toLowerCase())
    );
    if (found.length === 0) throw new CommandError(`${name}: no field's name contains ${text}`);
    context.print(`${found.join("\n")}\n`);
  },
};
