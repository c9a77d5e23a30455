import { kinds } from "../../src/debug/kinds.ts";
import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";
import { tourText } from "./tour.ts";

/** The command that explains all others; given the registry by it. */
export function helpCommand(commands: () => readonly Command[]): Command {
  return {
    name: ".help",
    usage: ".help [COMMAND | KIND]   .help tour",
    summary: "This overview, or all about one command or kind of exit; .help tour shows around",
    help:
      "Everything else at the prompt is TypeScript: naming an object shows its state and what it can do.",
    async run({ words: [word] }, context) {
      if (word === "tour") return context.print(tourText());
      if (!word) return context.print(overview(commands()));
      const found = find(commands(), word) ?? find(commands(), `.${word}`);
      const kind = kinds.find((it) => it === word);
      if (!found && !kind) {
        throw new CommandError(
          `.help: there is no command ${word}, nor a kind of exit; .help lists the commands, ` +
            ".help b the kinds",
        );
      }
      const texts: string[] = [];
      if (found) {
        const aliases = found.aliases ? `   (also ${found.aliases.join(", ")})` : "";
        texts.push(`${found.usage}${aliases}\n${found.summary}.\n\n${found.help}\n`);
      }
      if (kind) {
        const { kindText } = await import("../../src/debug/kind_help.ts");
        texts.push(`${kindText(kind)}\n`);
      }
      context.print(texts.join("\n"));
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

Everything else is TypeScript, with await: hv is the host, dom the current domain, vcpu its current vCPU, _ the
last value. Naming an object shows it; Tab completes; ctrl-C stops what runs; ctrl-R searches history.

  const stop = await dom.until("cr", { cr: 3, write: true })
  stop.vcpu.pageTables.walk(stop.regs.rip)
  dom.break("cpuid", { leaf: 1 }, (x) => x.reply({ ecx: x.result.ecx & ~1 }))
`;
}
