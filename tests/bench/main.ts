/**
 * `deno task bench [boot] [loops] [exits] [switches] [real] [processors] [xen] [start] [--runs N] [--kernel FILE] [--json FILE]`: measures
 * against the marks of the issues, with QEMU and v86 in the same run. Without a name, all of it.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { type BootResult, boots, showBoots } from "./boots.ts";
import { exitRate, switchRate } from "./exits.ts";
import { hypercallRate } from "./hypercalls.ts";
import { type LoopResult, loops, showLoops } from "./loops.ts";
import { machines, shadowed } from "./machines.ts";
import { figure, table } from "./measure.ts";
import {
  type ProcessorCost,
  processorCosts,
  showProcessorCosts,
  showTurnCosts,
  type TurnCost,
  turnCosts,
} from "./processors.ts";
import { REAL_LOOPS, type RealLoop, realModeRate } from "./real.ts";
import { startTime } from "./start.ts";
import { copyRate, roundTripRate } from "./xen.ts";
import { storeReadRate } from "./xenstore.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

const PARTS = ["boot", "loops", "exits", "switches", "real", "processors", "xen", "start"] as const;

/** Everything a run found out; absent what was not asked for. */
interface Results {
  boot?: BootResult[];
  loops?: LoopResult[];
  /** CPUID exits handled in TypeScript, a second, by the host's vendor. */
  cpuidExits?: Record<CpuModel, number>;
  /** Switches between two domains, a second, by the host's vendor. */
  switches?: Record<CpuModel, number>;
  /** Millions of instructions a second in real mode on VMX under shadow paging, by loop. */
  real?: Record<string, number>;
  /** What vCPUs, processors and the lengths of turns cost. */
  turns?: TurnCost[];
  processors?: ProcessorCost[];
  /** What of Xen's interface is done a second, by what it is and the host's vendor. */
  xen?: { what: string; mark: string; rate: number }[];
  /** Seconds to the prompt. */
  start?: number;
}

const args = parseArgs(Deno.args, { string: ["runs", "kernel", "json"] });
const parts = args._.length === 0 ? PARTS : args._.map(String);
const unknown = parts.filter((part) => !PARTS.includes(part as (typeof PARTS)[number]));
const runs = Number(args.runs ?? 3);
if (unknown.length > 0 || !Number.isInteger(runs) || runs < 1) {
  console.error(
    `bench: ${PARTS.join(", ")} and --runs of 1 or more were expected, ` +
      `given: ${Deno.args.join(" ")}`,
  );
  Deno.exit(2);
}

const { found, missing } = await machines();
for (const reason of missing) console.log(`left out: ${reason}`);

const results: Results = {};
if (parts.includes("boot")) {
  results.boot = await boots([...found, shadowed], runs, args.kernel ?? "vmlinuz-686");
  console.log(showBoots(results.boot), "\n");
}
if (parts.includes("loops")) {
  results.loops = await loops(found, runs);
  console.log(showLoops(results.loops), "\n");
}
if (parts.includes("exits")) {
  results.cpuidExits = {
    intel: await exitRate(runs, "intel"),
    amd: await exitRate(runs, "amd"),
  };
}
if (parts.includes("switches")) {
  results.switches = {
    intel: await switchRate(runs, "intel"),
    amd: await switchRate(runs, "amd"),
  };
}
if (parts.includes("real")) {
  results.real = {};
  for (const loop of Object.keys(REAL_LOOPS) as RealLoop[]) {
    results.real[loop] = await realModeRate(runs, "intel", "shadow", loop);
  }
}
if (parts.includes("processors")) {
  results.turns = [];
  for (const cpu of ["intel", "amd"] as const) {
    const costs = await turnCosts(runs, cpu);
    console.log(showTurnCosts(costs), "\n");
    results.turns.push(...costs);
  }
  results.processors = await processorCosts(runs);
  console.log(showProcessorCosts(results.processors), "\n");
}
if (parts.includes("xen")) {
  results.xen = [
    { what: "xenstore reads, the guest apart", mark: "20,000", rate: storeReadRate(runs) },
  ];
  for (const cpu of ["intel", "amd"] as const) {
    for (const width of [32, 64] as const) {
      results.xen.push({
        what: `hypercalls that do nothing, ${cpu}, ${width} bits`,
        mark: "3 million",
        rate: await hypercallRate(runs, cpu, width),
      });
    }
    results.xen.push(
      {
        what: `event round trips, both block, ${cpu}`,
        mark: "200,000",
        rate: await roundTripRate(runs, cpu, false),
      },
      {
        what: `event round trips, both spin, ${cpu}`,
        mark: "reported",
        rate: await roundTripRate(runs, cpu, true),
      },
      { what: `grant copies of 4 KiB, ${cpu}`, mark: "500,000", rate: await copyRate(runs, cpu) },
    );
  }
}
if (parts.includes("start")) results.start = await startTime(runs * 3);
console.log(table([["what", "mark", "measured"], ...marks(results)]));
if (args.json) Deno.writeTextFileSync(args.json, JSON.stringify(results, null, 2) + "\n");

/** The marks of issue 2 that this run can speak of. */
function marks({ boot, cpuidExits, switches, real, processors, xen, start }: Results): string[][] {
  const rows: string[][] = [];
  const v86 = boot?.find((r) => r.machine === "v86");
  for (const own of boot?.filter((r) => r.own) ?? []) {
    if (v86) {
      const ratio = own.doneCpu / v86.doneCpu;
      rows.push([`${own.machine}: CPU time to DONE / v86's`, "1.5 or less", figure(ratio)]);
    }
    const beside = own.beside / 2 ** 20;
    rows.push([`${own.machine}: memory beside the guest`, "200 MB", `${figure(beside)} MB`]);
  }
  const cpu = (name: string) => boot?.find((r) => r.machine === name)?.doneCpu;
  const shadow = cpu("xvm hvm shadow"), nested = cpu("xvm hvm");
  if (shadow && nested) {
    rows.push(["CPU time to DONE, shadow / nested paging", "reported", figure(shadow / nested)]);
  }
  for (const { what, mark, rate } of xen ?? []) {
    rows.push([`${what}, a second`, mark, `${figure(rate / 1e3)} thousand`]);
  }
  for (const [vendor, rate] of Object.entries(cpuidExits ?? {})) {
    rows.push([`CPUID exits a second, ${vendor}`, "2 million", `${figure(rate / 1e6)} million`]);
  }
  for (const [vendor, rate] of Object.entries(switches ?? {})) {
    rows.push([`world switches a second, ${vendor}`, "300,000", figure(Math.round(rate))]);
  }
  for (const [loop, rate] of Object.entries(real ?? {})) {
    rows.push([`real mode, intel, shadow: ${loop}`, "5 MIPS", `${figure(rate)} MIPS`]);
  }
  const idle = processors?.find((r) => r.processors === 8 && r.vcpus === 1);
  const working = processors?.find((r) => r.vcpus === 8), one = processors?.[0];
  for (const [what, r] of [["idle", idle], ["working", working]] as const) {
    if (!r || !one) continue;
    const each = (r.peak - one.peak) / 7 / 2 ** 20;
    rows.push([`memory for a further processor, ${what}`, "20 MB", `${figure(each)} MB`]);
  }
  if (start !== undefined) rows.push(["warm start to the prompt", "0.25 s", `${figure(start)} s`]);
  return rows;
}
