/**
 * Runs programs on xvm: each in a PVH domain that knows Xen, as domain 0 makes them for the oracle.
 *
 * @module
 */
import { Hypervisor } from "../../../src/debug/hypervisor.ts";
import { MEMORY, VCPUS } from "./dom0.ts";
import { oracleGuest } from "./guest.ts";
import { readRun, type Run } from "./program.ts";
import type { Program } from "./writer.ts";

/** Where a program runs. */
export interface Place {
  readonly cpu: "intel" | "amd";
  readonly paging: "hap" | "shadow";
}

/** Milliseconds until a domain is given up that does not end. */
const LIMIT = 60_000;

/** What a program answers on xvm, and how its domain ended. */
export async function runOnXvm(
  { width, bytes }: Program,
  { cpu, paging }: Place,
): Promise<Run & { readonly ending: string }> {
  await using hv = await Hypervisor.start({ cpu, memory: "128M", cpus: 1 });
  const dom = await hv.createDomain({
    type: "pvh",
    xen: true,
    kernel: oracleGuest(width),
    modules: [{ file: bytes }],
    memory: `${MEMORY}M`,
    vcpus: VCPUS,
    paging,
  });
  dom.unpause();
  const limit = AbortSignal.timeout(LIMIT);
  const { reason, detail } = await Promise.race([
    dom.ended,
    new Promise<{ reason: string; detail: string }>((resolve) =>
      limit.addEventListener("abort", () => resolve({ reason: "no end", detail: dom.state }))
    ),
  ]);
  return { ...readRun(dom.console.text.split("\n")), ending: `${reason} (${detail})` };
}
