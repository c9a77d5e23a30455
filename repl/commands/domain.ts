import { CommandError, type Context, type DomainView } from "../context.ts";
import type { Command } from "./command.ts";
import { printHere, table } from "./format.ts";

const MIB = 2 ** 20;

/** The domains as `xl list` shows them. */
function list(domains: readonly DomainView[]): string {
  const rows = domains.map((it) => [
    it.name,
    it.id,
    it.memory.size === undefined ? "-" : `${it.memory.size / MIB} MB`,
    it.vcpus.length,
    it.blocked ? "waiting" : it.state,
    it.weight ?? "-",
    it.cap ? `${it.cap} %` : "none",
    it.cpuShare === undefined ? "-" : `${(100 * it.cpuShare).toFixed(1)} %`,
    it.statistics === undefined ? "-" : it.statistics().instructions.toLocaleString("en"),
  ]);
  const head = ["name", "id", "memory", "vcpus", "state", "weight", "cap", "cpu", "instructions"];
  return table(head, rows);
}

/** The domain of that number or name. */
function find(word: string, what: string, context: Context): DomainView {
  const domains = [...context.hypervisor()?.domains ?? []];
  const found = domains.find((it) => String(it.id) === word) ??
    domains.find((it) => it.name === word);
  if (found) return found;
  const known = domains.map((it) => `${it.id} (${it.name})`).join(", ") || "none";
  throw new CommandError(`${what}: there is no domain ${word}; there are: ${known}`);
}

export const domain: Command = {
  name: "dom",
  aliases: ["domains"],
  usage: "domains, dom [N|NAME [VCPU]]",
  summary: "List domains, or choose the one commands act on",
  help:
    `The list is that of xl: name, id, memory, state, weight, cap, and the part of the processor's time
each had since it was made. The current domain and vCPU are what dom and vcpu mean at the prompt;
without an argument, where dom is the current domain, it prints it.

API: hv.domains, dom.weight, dom.cap, dom.cpuShare`,
  run({ words }, context) {
    if (words.length === 0) {
      const domains = [...context.hypervisor()?.domains ?? []];
      return context.print(domains.length ? `${list(domains)}\n` : "no domains\n");
    }
    const found = find(words[0], "dom", context);
    choose(found, words[1], "dom", context);
    const { id, name, state } = found;
    context.print(`domain ${id} (${name}), vCPU ${context.vcpu().id}, ${state}\n`);
  },
};

/** Makes a domain the current one, and its vCPU of that number, if one is said. */
function choose(
  domain: DomainView,
  word: string | undefined,
  what: string,
  context: Context,
): void {
  const vcpu = word === undefined ? undefined : /^\d+$/.test(word) ? Number(word) : NaN;
  if (vcpu !== undefined && !domain.vcpus[vcpu]) {
    const { id, vcpus: { length } } = domain;
    const has = length === 1 ? "vCPU 0 alone" : `0 to ${length - 1}`;
    throw new CommandError(`${what}: domain ${id} has no vCPU ${word}; it has ${has}`);
  }
  context.select(domain, vcpu);
}

export const vcpu: Command = {
  name: "vcpu",
  usage: "vcpu N",
  summary: "Choose the vCPU commands act on",
  help:
    `Registers, steps, disassembly, memory and page tables are those of the current vCPU, which vcpu means
at the prompt; without a number it is printed. Where the domain stops, the vCPU that met the stop is the
current one.

API: dom.vcpus, which prints a table of what each does and where; dom.vcpus[N]`,
  run({ words }, context) {
    if (words.length !== 1) throw new CommandError("vcpu: a number was expected, one");
    choose(context.domain(), words[0], "vcpu", context);
    const { id } = context.vcpu();
    context.print(`vCPU ${id}\n`);
    printHere(context.vcpu(), context);
  },
};

export const weight: Command = {
  name: "weight",
  usage: "weight [N|NAME] [WEIGHT]",
  summary: "Show or set a domain's share of the processor",
  help:
    `Of two domains that both want the processor, one of twice the weight gets twice the time. The
weight is 256 if nobody sets it, and may be 1 to 65535; a cap (dom.cap = 40, percent) holds even when
nobody else wants the processor.

API: dom.weight, dom.cap`,
  run({ words }, context) {
    if (words.length > 2) throw new CommandError("weight: a domain and a weight were expected");
    const named = words.length === 2 || (words.length === 1 && !/^\d+$/.test(words[0]));
    const found = named ? find(words[0], "weight", context) : context.domain();
    const value = words.length === 2 ? words[1] : named ? undefined : words[0];
    if (value !== undefined) {
      try {
        found.weight = /^\d+$/.test(value) ? Number(value) : NaN;
      } catch {
        throw new CommandError(`weight: a number from 1 to 65535 was expected, not ${value}`);
      }
    }
    context.print(`domain ${found.id} (${found.name}) has weight ${found.weight}\n`);
  },
};
