import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";

/** Options of a domain that can be written here, and those of the comparison. */
const KEYS = ["kernel", "ramdisk", "cmdline", "memory", "type", "cpuid", "until"];

export const compare: Command = {
  name: "compare",
  usage: "compare [A B] [KEY=VALUE…]",
  summary: "One guest on two configurations: exits side by side, and the first that differs",
  help:
    `Runs a guest twice, on hosts of their own: on intel and amd, unless A and B say otherwise. Each is
made of intel, amd, hap, shadow, cpuid:MODEL and seed:N, joined by +. Both guests see the processor
"common", unless cpuid=MODEL names another. Keys: ${KEYS.join(" ")}; without a kernel
it is the demo guest. It runs until its console shows the text of until (an instruction count is one,
too): "power off" for the demo guest, else GUEST-READY.

  compare
  compare hap shadow
  compare amd+hap amd+shadow kernel=vmlinuz ramdisk=initrd.gz cmdline="console=ttyS0 quiet"

API: await compare({ host: { cpu: "intel" } }, { host: { cpu: "amd" } }, { until: "power off" })`,
  async run({ words }, context) {
    const given = new Map<string, string>(), sides: string[] = [];
    for (const word of words) {
      const [, key, value] = word.match(/^(\w+)=(.*)$/) ?? [];
      if (key === undefined) sides.push(word);
      else if (KEYS.includes(key)) given.set(key, value.replace(/^(["'])(.*)\1$/, "$2"));
      else throw new CommandError(`compare: there is no ${key}; keys: ${KEYS.join(" ")}`);
    }
    if (sides.length !== 0 && sides.length !== 2) {
      throw new CommandError(`compare: two configurations are needed, got ${sides.join(" ")}`);
    }
    const api = await import("xvm");
    const until = given.get("until") ?? (given.has("kernel") ? "GUEST-READY" : "power off");
    given.delete("until");
    const [a, b] = (sides.length ? sides : ["intel", "amd"]).map((word) => {
      try {
        const { host, domain } = api.configurationOf(word);
        return {
          host,
          domain: { cpuid: "common", ...Object.fromEntries(given), ...domain } as object,
        };
      } catch (error) {
        throw new CommandError(`compare: ${(error as Error).message}`);
      }
    });
    const controller = new AbortController();
    const end = context.onInterrupt(() => controller.abort());
    try {
      const wanted = /^\d[\d_]*$/.test(until) ? Number(until.replaceAll("_", "")) : until;
      const result = await api.compare(a, b, { until: wanted, signal: controller.signal });
      context.print(`${context.show(result)}\n`);
    } finally {
      end();
    }
  },
};
