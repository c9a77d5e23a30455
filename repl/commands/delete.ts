import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";

export const delete_: Command = {
  name: "bd",
  usage: "bd ID…   bd *",
  summary: "Delete breakpoints by number, or all",
  help: `Deletes breakpoints, watchpoints and traces.

API: breakpoint.delete()`,
  run({ words }, context) {
    const all = [...context.domain().breakpoints];
    if (words.length === 0) throw new CommandError("bd: which? a number from bl, or * for all");
    const chosen = words.includes("*") ? all : words.map((word) => {
      const found = all.find((it) => String(it.id) === word);
      if (found) return found;
      const known = all.map((it) => it.id).join(", ") || "none";
      throw new CommandError(`bd: there is no breakpoint ${word}; there are: ${known}`);
    });
    for (const it of chosen) it.delete();
    context.print(`deleted ${chosen.length}\n`);
  },
};
