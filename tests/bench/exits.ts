/** VM exits a second: a guest that does nothing but CPUID, each handled in TypeScript. */
import { buildHvm } from "../../src/builder/domain.ts";
import { assemble } from "../../src/machine/isa/encode_assembler.ts";
import type { CpuModel } from "../../src/machine/cpu.ts";
import { Host } from "../../src/xen/host.ts";
import process from "node:process";
import { median } from "./measure.ts";

const LOAD = 0x100000;
const CODE = `
  header:
    dd 0x1badb002, 0x10000, ${2 ** 32 - 0x1badb002 - 0x10000}
    dd header, ${LOAD}, 0, 0, entry
  entry:
    mov eax, 0
    cpuid
    jmp entry`;

/** Instructions of the loop for one exit. */
const PER_EXIT = 3;
const MEASURED = 2_000_000;

/** Exits a second of CPU time on a host of that vendor, as the median of `runs`. */
export async function exitRate(runs: number, cpu: CpuModel): Promise<number> {
  const { bytes } = assemble(CODE, { origin: LOAD, mode: 32 });
  const memory = 16 << 20;
  const host = new Host({ cpu, memory: 2 * memory, unixTime: 0, seed: 1 });
  const { domain } = await buildHvm(host, {
    name: "cpuid",
    type: "hvm",
    kernel: { file: "cpuid loop", bytes },
    memory,
    vcpus: 1,
    paging: "hap",
  });
  domain.setState({ kind: "running" });
  const rates: number[] = [];
  // The first turn warms up.
  for (let run = 0; run <= runs; run++) {
    const before = domain.exits.cpuid ?? 0, started = process.cpuUsage();
    while ((domain.exits.cpuid ?? 0) - before < MEASURED) host.runOnce(PER_EXIT * 100_000);
    const { user, system } = process.cpuUsage(started);
    const seconds = (user + system) / 1e6;
    if (run > 0) rates.push((domain.exits.cpuid - before) / seconds);
  }
  return median(rates);
}
