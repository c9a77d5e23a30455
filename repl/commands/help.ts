import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";
import { tourText } from "./tour.ts";

/** The command that explains all others; given the registry by it. */
export function helpCommand(commands: () => readonly Command[]): Command {
  return {
    name: ".help",
    usage: ".help [COMMAND]   .help tour",
    summary: "This overview, or all about one command; .help tour shows around",
    help:
      "Everything else at the prompt is TypeScript: naming an object shows its state and what it can do.",
    run({ words: [word] }, context) {
      if (word === "tour") return context.print(tourText());
      if (!word) return context.print(overview(commands()));
      const found = find(commands(), word) ?? find(commands(), `.${word}`);
      if (!found) throw new CommandError(`.help: there is no command ${word}; .help lists them`);
      const aliases = found.aliases ? `   (also ${found.aliases.join(", ")})` : "";
      context.print(`${found.usage}${aliases}\n${found.summary}.\n\n${found.help}\n`);
    },
  };
}

const find = (commands: readonly Command[], word: string) =>
  commands.find((it) => it.name === word || it.aliases?.includes(word));

function overview(commands: readonly Command[]): string {
  const lines = commands.map(({ name, aliases = [], summary }) =>
    `  ${[name, ...aliases].join(" ").padEnd(12)} ${summary}`
  );
  return `Commands (.help COMMAND tells more; .help tour shows around). Where a variable has a command's
name, the command has a dot: .s 3
${lines.join("\n")}

Everything else is TypeScript, with await: hv is the host, dom the current domain, vcpu its vCPU, _ the
last value. Naming an object shows it; Tab completes; ctrl-C stops what runs; ctrl-R searches history.

  const stop = await dom.until("cr", { cr: 3, write: true })
  stop.vcpu.pageTables.walk(stop.regs.rip)
  dom.break("cpuid", { leaf: 1 }, (x) => x.reply({ ecx: x.result.ecx & ~1 }))
`;
}
