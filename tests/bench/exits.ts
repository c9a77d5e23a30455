/**
 * What leaving a guest costs: VM exits a second, of a guest that does nothing but CPUID, each handled
 * in TypeScript; and world switches a second between two domains.
 */
import { build } from "../../src/builder/domain.ts";
import { assemble } from "../../src/machine/isa/encode_assembler.ts";
import { Host } from "../../src/xen/host.ts";
import process from "node:process";
import { median } from "./measure.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

const LOAD = 0x100000;
export const image = (code: string) =>
  assemble(
    `header:
      dd 0x1badb002, 0x10000, ${2 ** 32 - 0x1badb002 - 0x10000}
      dd header, ${LOAD}, 0, 0, entry
    entry:
      ${code}`,
    { origin: LOAD, mode: 32 },
  ).bytes;

const CPUID = image("mov eax, 0\ncpuid\njmp entry");
/** Reads and writes memory, so that each switch has translations to make anew. */
const WORK = image("inc dword [0x200000]\nmov ebx, [0x300000]\nadd ebx, ecx\njmp entry");

/** Instructions of the loop for one exit. */
const PER_EXIT = 3;
const MEASURED = 2_000_000;
/** Instructions of a turn between two switches, and how many switches are measured. */
const TURN = 8, SWITCHES = 300_000;
const MEMORY = 16 << 20;

/** A host with a domain for each image, in 16 MB each. */
export async function running(
  cpu: CpuModel,
  images: readonly Uint8Array[],
  { xen = false }: { readonly xen?: boolean } = {},
) {
  const host = new Host({ cpu, memory: (images.length + 1) * MEMORY, unixTime: 0, seed: 1 });
  for (const [n, bytes] of images.entries()) {
    const { domain } = await build(host, {
      name: `bench ${n}`,
      type: "hvm",
      kernel: { file: "benchmark", bytes },
      memory: MEMORY,
      vcpus: 1,
      paging: "hap",
      xen,
    });
    domain.setState({ kind: "running" });
  }
  return host;
}

/** How often a second of CPU time something happens, as the median of `runs`; `turn` does it once more. */
export function rate(runs: number, turn: () => number): number {
  const rates: number[] = [];
  // The first turn warms up.
  for (let run = 0; run <= runs; run++) {
    const started = process.cpuUsage();
    const done = turn();
    const { user, system } = process.cpuUsage(started);
    if (run > 0) rates.push(done / ((user + system) / 1e6));
  }
  return median(rates);
}

/** Exits a second of CPU time, as the median of `runs`. */
export async function exitRate(runs: number, cpu: CpuModel): Promise<number> {
  const host = await running(cpu, [CPUID]), [domain] = host.domains;
  return rate(runs, () => {
    const before = domain.exits.cpuid ?? 0;
    while ((domain.exits.cpuid ?? 0) - before < MEASURED) host.runOnce(PER_EXIT * 100_000);
    return domain.exits.cpuid - before;
  });
}

/** Switches a second between two domains, each with its turn of a few instructions. */
export async function switchRate(runs: number, cpu: CpuModel): Promise<number> {
  const host = await running(cpu, [WORK, WORK]), [processor] = host.processors;
  return rate(runs, () => {
    // Equals take turns, once the seed's head start is used up.
    for (let n = 0, before; n < SWITCHES; n += processor.current === before ? 0 : 1) {
      before = processor.current;
      host.runOnce(TURN);
    }
    return SWITCHES;
  });
}
