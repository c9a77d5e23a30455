/**
 * Boots real kernels in every way there is, to the three results of their initramfs, and compares what
 * the guests can see: {686 bzImage, 686-pae PVH, cloud PVH, cloud bzImage, amd64 PVH} on
 * {intel, amd} with {hap, shadow}, and the cloud kernel bare.
 *
 * `deno task matrix [WORDS…] [--vcpus N,…] [--cpus N,…] [--cpuid MODEL] [--ready] [--timeout SECONDS]`
 *
 * Words choose: intel, amd, hap, shadow, bare, and parts of kernels' names ("cloud", "686-pae"). With
 * `--ready` a boot ends at GUEST-READY. With `--vcpus` each boots once for each number, on hosts of each
 * number of processors that `--cpus` names, in the order given; more kernels are there then, the guest
 * says how many processors it has found, and its number is checked. Guests see the processor "common",
 * unless `--cpuid` names another ("own": the host's). Each boot is a process of its own; what cannot be
 * made shows the refusal as its result. Exit status 1 when a boot fails, or two of one guest differ (of a
 * 32-bit one on two vendors: in more than what is left in memory).
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import process from "node:process";
import { GuestDigest, runUntil } from "xvm";
import { differenceText, type DigestRecord } from "../src/debug/digest.ts";
import { EXPECTED_LINES } from "../repl/guests/initramfs.ts";
import {
  type Boot,
  bootOf,
  CHOICES,
  chosen,
  DONE,
  endWithChildren,
  type Kernel,
  KERNELS,
  nameOf,
  NPROC,
  runBoot,
  SEVERAL,
  startBoot,
} from "./boots.ts";

const READY = "GUEST-READY";

/** What the guest was when its console had shown a text. */
interface Milestone {
  readonly instructions: number;
  readonly time: number;
  readonly state: DigestRecord;
}

/** What a boot came to; written to a file by its process. */
interface Result {
  readonly end: string;
  readonly refused: boolean;
  readonly console: string;
  readonly instructions: number;
  readonly exits: number;
  readonly cpuSeconds: number;
  readonly milestones: Readonly<Record<string, Milestone>>;
}

const failed = (end: string, refused = false): Result => ({
  end,
  refused,
  console: "",
  instructions: 0,
  exits: 0,
  cpuSeconds: 0,
  milestones: {},
});

// --- in the boot's own process ---

async function boot(it: Boot, cpuid: string, ready: boolean): Promise<Result> {
  let dom;
  try {
    ({ dom } = await startBoot(it, cpuid));
  } catch (error) {
    return failed((error as Error).message, true);
  }
  const milestones: Record<string, Milestone> = {};
  let end = "";
  for (const until of ready ? [READY] : [READY, DONE]) {
    end = await runUntil(dom, { until });
    if (end !== "until") break;
    const { instructions, time } = dom.statistics();
    milestones[until] = { instructions, time, state: GuestDigest.of(dom).toJSON() };
  }
  const { user, system } = process.cpuUsage();
  const { instructions, exits } = dom.statistics();
  return {
    end: end === "until" ? verdict(it, dom.console.text, ready) : end,
    refused: false,
    console: dom.console.text,
    instructions,
    exits: Object.values(exits).reduce((sum, n) => sum + n, 0),
    cpuSeconds: (user + system) / 1e6,
    milestones,
  };
}

/** "ok", or the first result that is not as on every correct machine. */
function verdict({ vcpus }: Boot, text: string, ready: boolean): string {
  // The kernel may say something of its own between them.
  const lines = text.split(/\r?\n/).filter((line) => !line.startsWith("["));
  const from = lines.findIndex((line) => line.startsWith(READY));
  const wanted = ready ? [] : EXPECTED_LINES.slice(1);
  const given = lines.slice(from + 1, from + 1 + wanted.length);
  if (vcpus !== undefined) {
    wanted.unshift(`${NPROC}${vcpus}`);
    given.unshift(lines.find((line) => line.startsWith(NPROC)) ?? "nothing");
  }
  const wrong = wanted.findIndex((line, i) => line !== given[i]);
  if (wrong < 0) return "ok";
  return `${JSON.stringify(given[wrong])} instead of ${JSON.stringify(wanted[wrong])}`;
}

// --- in the process that was started ---

/** Starts a boot's process, and waits for what it writes. */
async function run(it: Boot, options: string[], timeout: number): Promise<Result> {
  const done = await runBoot<Result>(import.meta.filename!, it, options, timeout);
  return typeof done === "string" ? failed(done) : done;
}

const millions = (n: number | undefined) => n === undefined ? "" : (n / 1e6).toFixed(1);

const COLUMNS = [28, 10, 10, 9, 9, 9] as const;
function row(cells: readonly string[]): string {
  const own = cells.slice(0, COLUMNS.length);
  const padded = own.map((c, i) => i === 0 ? c.padEnd(COLUMNS[i] + 6) : c.padStart(COLUMNS[i]));
  return [...padded, ...cells.slice(COLUMNS.length)].join("  ");
}

/** The boots with the same numbers of vCPUs and processors. */
function alikeNumbers(boots: ReadonlyMap<Boot, Result>): readonly ReadonlyMap<Boot, Result>[] {
  return [...Map.groupBy(boots, ([{ vcpus, cpus }]) => `${vcpus} ${cpus}`).values()]
    .map((some) => new Map(some));
}

/**
 * Compares each boot of one guest with the first of its vendor, and the first of one vendor with that
 * of the other; true if none differs. A 32-bit kernel pushes segment registers, and what that leaves
 * above them in memory is the vendor's ("segment.push" in src/machine/vendors.ts): contents of memory
 * do not count there.
 */
function compareBoots(kernel: Kernel, results: ReadonlyMap<Boot, Result>): boolean {
  const same = [...results].filter(([boot, r]) => boot.kernel === kernel && r.end === "ok");
  let equal = true;
  for (const [i, [boot, b]] of same.entries()) {
    if (i === 0) continue;
    const [first, a] = same.slice(0, i).find(([{ cpu }]) => cpu === boot.cpu) ?? same[0];
    const alike = first.cpu === boot.cpu || kernel.bits === 64;
    const names = [nameOf(first), nameOf(boot)] as const;
    const said: string[] = [];
    if (a.console !== b.console) said.push(`console: ${textDifference(a.console, b.console)}`);
    for (const [text, milestone] of Object.entries(a.milestones)) {
      const other = b.milestones[text];
      const [x, y] = [milestone, other].map(({ state }) => GuestDigest.from(state));
      const found = x.differences(y).filter(({ block }) => alike || block !== "memory");
      if (found.length) said.push(`at ${text}:\n${differenceText(found, names)}`);
    }
    const verdict = said.length
      ? "differs"
      : `same console, same state${alike ? "" : " apart from memory"} at ${
        Object.keys(a.milestones).join(" and ")
      }`;
    console.log(`${names[1]} against ${names[0]}: ${verdict}`);
    for (const line of said) console.log(line.replace(/^/gm, "  "));
    equal &&= said.length === 0;
  }
  return equal;
}

function textDifference(a: string, b: string): string {
  const [x, y] = [a.split("\n"), b.split("\n")];
  const at = x.findIndex((line, i) => line !== y[i]);
  return `line ${at + 1}: ${JSON.stringify(x[at])} and ${JSON.stringify(y[at])}`;
}

/** The numbers of an option, in its order; undefined alone if it is not given. */
const numbers = (text: string | undefined): readonly (number | undefined)[] =>
  text === undefined ? [undefined] : text.split(",").map(Number);

async function main(): Promise<number> {
  const args = parseArgs(Deno.args, {
    string: ["_", "cpuid", "timeout", "boot", "to", "vcpus", "cpus"],
    boolean: ["ready"],
  });
  const cpuid = args.cpuid ?? "common";
  if (args.boot !== undefined) {
    const result = await boot(bootOf(args.boot), cpuid, args.ready);
    await Deno.writeTextFile(args.to!, JSON.stringify(result));
    return 0;
  }
  const vcpus = numbers(args.vcpus), cpus = numbers(args.cpus);
  const one = chosen(args._.map(String), args.vcpus ? [...KERNELS, ...SEVERAL] : KERNELS);
  const boots = vcpus.flatMap((vcpus) =>
    one.flatMap((it) => cpus.map((cpus): Boot => ({ ...it, vcpus, cpus })))
  );
  const timeout = Number(args.timeout ?? 1800);
  if (boots.length === 0 || !(timeout > 0)) {
    console.error(`matrix: nothing is chosen; there are ${CHOICES}`);
    return 2;
  }
  endWithChildren();
  const options = ["--cpuid", cpuid, ...(args.ready ? ["--ready"] : [])];
  console.log(row(["guest", "READY, M", "all, M", "exits", "CPU s", "wall s", "result"]));
  const results = new Map<Boot, Result>();
  for (const it of boots) {
    const started = performance.now();
    const result = await run(it, options, timeout);
    results.set(it, result);
    const wall = (performance.now() - started) / 1000;
    const numbers = result.refused ? ["", "", "", "", ""] : [
      millions(result.milestones[READY]?.instructions),
      millions(result.instructions),
      String(result.exits),
      result.cpuSeconds.toFixed(1),
      wall.toFixed(1),
    ];
    console.log(
      row([nameOf(it), ...numbers, result.refused ? `refused: ${result.end}` : result.end]),
    );
  }
  console.log();
  let equal = true;
  for (const same of alikeNumbers(results)) {
    for (const kernel of [...KERNELS, ...SEVERAL]) equal = compareBoots(kernel, same) && equal;
  }
  const good = [...results.values()].filter((r) => r.end === "ok").length;
  const refused = [...results.values()].filter((r) => r.refused).length;
  console.log(
    `${boots.length} boots: ${good} ok, ${refused} refused, ${
      boots.length - good - refused
    } failed`,
  );
  return equal && good === boots.length ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
