import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";
import { filterText } from "./format.ts";
import { address, count } from "./parse.ts";

export const watch: Command = {
  name: "watch",
  usage: "watch ADDRESS [LENGTH] [r|w|rw] [gpa] [vcpu=N]",
  summary: "Stop when memory is written (or read)",
  help:
    `Stops at an access to LENGTH bytes (1 if not given) from a linear address, or with gpa from a
guest-physical one; of all vCPUs, or of one. Guest memory and its page tables are not changed for it.

  watch jiffies 4
  watch 0xb8000 4000 w gpa

API: dom.break("memory", { address, length, write: true })`,
  async run({ words }, context) {
    const [where, ...options] = words;
    if (!where) throw new CommandError("watch: an address is missing");
    const physical = options.includes("gpa");
    const access = options.find((it) => /^(r|w|rw)$/.test(it)) ?? "w";
    const [named, vcpu] = options.map((it) => it.match(/^vcpu=(\d+)$/)).find((it) => it) ?? [];
    const rest = options.filter((it) => ![named, "gpa", access].includes(it));
    if (rest.length > 1) {
      throw new CommandError(`watch: cannot make sense of ${rest.slice(1).join(" ")}`);
    }
    const made = context.domain().break("memory", {
      address: await address(where, context),
      length: count(rest[0], 1, "watch: length"),
      read: access.includes("r"),
      write: access.includes("w"),
      ...(physical ? { physical } : {}),
      ...(vcpu === undefined ? {} : { vcpu: Number(vcpu) }),
    });
    context.print(`watchpoint ${made.id}: ${filterText(made.filter, context)}\n`);
  },
};
