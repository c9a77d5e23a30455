import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";
import { table } from "./format.ts";

export const domain: Command = {
  name: "dom",
  usage: "dom [N|NAME [VCPU]]",
  summary: "List domains, or choose the one commands act on",
  help:
    `The current domain and vCPU are what dom and vcpu mean at the prompt. Without an argument, where
dom is the current domain, it prints it.

API: hv.domains`,
  run({ words }, context) {
    const domains = [...context.hypervisor()?.domains ?? []];
    if (words.length === 0) {
      const rows = domains.map((it) => [it.id, it.name, it.state, it.vcpus.length]);
      return context.print(
        rows.length ? `${table(["id", "name", "state", "vcpus"], rows)}\n` : "no domains\n",
      );
    }
    const found = domains.find((it) => String(it.id) === words[0]) ??
      domains.find((it) => it.name === words[0]);
    if (!found) {
      const known = domains.map((it) => `${it.id} (${it.name})`).join(", ") || "none";
      throw new CommandError(`dom: there is no domain ${words[0]}; there are: ${known}`);
    }
    const vcpu = Number(words[1] ?? 0);
    if (!found.vcpus[vcpu]) {
      throw new CommandError(
        `dom: domain ${found.id} has no vCPU ${words[1]}; it has ${found.vcpus.length}`,
      );
    }
    context.select(found, vcpu);
    context.print(`domain ${found.id} (${found.name}), vCPU ${vcpu}, ${found.state}\n`);
  },
};
