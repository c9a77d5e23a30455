/**
 * The digest of what guests can see, at ten positions of each boot of the matrix, compared with the
 * recording beside this file; or recorded.
 *
 * `deno task digest [--only WORDS] [--record] [--small] [--jobs N] [--timeout SECONDS]`
 *
 * A boot, "686-pae PVH intel hap", is chosen by words that are all in its name; a comma stands between
 * choices: `--only "cloud amd,bare"`. With `--small` it is the repository's small guests, which the unit
 * tests compare as well. `--record` writes what is seen in place of what was recorded of the chosen
 * ones. Each boot is a process of its own, and `--jobs` of them run at a time. Exit status 1 when a
 * position differs, a boot fails or is not recorded; 2 when nothing was compared, since what was
 * recorded was of other images.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { runUntil } from "xvm";
import {
  type Boot,
  bootOf,
  chosen,
  DONE,
  endWithChildren,
  filesOf,
  nameOf,
  runBoot,
  startBoot,
} from "../../scripts/boots.ts";
import { KERNEL_MAX, readFile } from "../../src/debug/files.ts";
import {
  differing,
  type Images,
  placesOf,
  readRecording,
  type Recorded,
  type Recording,
  sha256,
  tenths,
  writeRecording,
} from "./record.ts";
import { SMALL, smallRuns } from "./small.ts";

/** Where the recording of the boots is. */
const BOOTS = new URL("boots.json", import.meta.url).pathname;
const CPUID = "common";

/** A guest that can be run: its name, and a run at the recorded positions or at new ones. */
interface Subject {
  readonly name: string;
  /** Undefined: known only after a run. */
  readonly images: Images | undefined;
  /** What was seen, or how it failed. */
  run(positions: readonly number[] | undefined): Promise<Recorded | string>;
}

/** SHA-256 by file. */
const hashes = new Map<string, string>();
function imagesOf(it: Boot): Images {
  const ofFile = (file: string) => {
    let hash = hashes.get(file);
    if (!hash) hashes.set(file, hash = sha256(readFile("digest", file, KERNEL_MAX)));
    return hash;
  };
  const { kernel, ramdisk } = filesOf(it);
  return { kernel: ofFile(kernel), ramdisk: ofFile(ramdisk) };
}

// --- in the boot's own process ---

/** Instructions of a boot until its initramfs has said that it is done. */
async function totalOf(it: Boot): Promise<number> {
  const { dom } = await startBoot(it, CPUID);
  const end = await runUntil(dom, { until: DONE });
  if (end !== "until") throw new Error(`${nameOf(it)} did not come to ${DONE}: ${end}`);
  return dom.statistics().instructions;
}

async function look(it: Boot, positions: readonly number[]): Promise<Recorded> {
  const at = positions.length ? positions : tenths(await totalOf(it));
  return { images: imagesOf(it), places: await placesOf((await startBoot(it, CPUID)).dom, at) };
}

// --- in the process that was started ---

const bootSubject = (it: Boot, timeout: number): Subject => ({
  name: nameOf(it),
  images: imagesOf(it),
  run: (positions) =>
    runBoot<Recorded>(import.meta.filename!, it, ["--positions", `${positions ?? ""}`], timeout),
});

/** The outcome of one, as a line says it. */
interface Outcome {
  readonly seen?: Recorded;
  readonly verdict: string;
  readonly bad: boolean;
}

async function judge(it: Subject, recorded: Recorded | undefined): Promise<Outcome> {
  if (!recorded) return { verdict: "not recorded", bad: true };
  const other = (images: Images | undefined) =>
    images && JSON.stringify(images) !== JSON.stringify(recorded.images);
  const elsewhere = { verdict: "recorded for other images", bad: false };
  if (other(it.images)) return elsewhere;
  const seen = await it.run(recorded.places.map((place) => place.position));
  if (typeof seen === "string") return { verdict: `failed: ${seen}`, bad: true };
  if (other(seen.images)) return elsewhere;
  const found = differing(recorded.places, seen.places);
  if (found.length === 0) return { seen, verdict: `equal at ${seen.places.length}`, bad: false };
  const lines = found.map(({ position, sections }) => `\n  at ${position}: ${sections.join(" ")}`);
  return { seen, verdict: `differs at ${found.length}:${lines.join("")}`, bad: true };
}

async function record(it: Subject): Promise<Outcome> {
  const seen = await it.run(undefined);
  if (typeof seen === "string") return { verdict: `failed: ${seen}`, bad: true };
  return { seen, verdict: `recorded at ${seen.places.length}`, bad: false };
}

/** Runs `work` on all of them, so many at a time. */
async function atOnce<T>(all: readonly T[], jobs: number, work: (it: T) => Promise<void>) {
  const left = [...all];
  const worker = async () => {
    for (let it = left.shift(); it; it = left.shift()) await work(it);
  };
  await Promise.all(Array.from({ length: jobs }, worker));
}

const row = (name: string, total: string, seconds: string, verdict: string): string =>
  [name.padEnd(28), total.padStart(13), seconds.padStart(8), verdict].join("  ");

/** Whether a name has all words of one of the choices, which commas part. */
function chooser(choices: string): (name: string) => boolean {
  const lists = choices.split(",").map((choice) => choice.split(" ").filter(Boolean));
  return (name) => lists.some((words) => words.every((word) => name.split(" ").includes(word)));
}

async function main(): Promise<number> {
  const args = parseArgs(Deno.args, {
    string: ["_", "only", "jobs", "timeout", "boot", "to", "positions"],
    boolean: ["record", "small"],
  });
  if (args.boot !== undefined) {
    const positions = (args.positions ?? "").split(",").filter(Boolean).map(Number);
    const seen = await look(bootOf(args.boot), positions);
    await Deno.writeTextFile(args.to!, JSON.stringify(seen));
    return 0;
  }
  const wanted = chooser([args.only ?? "", ...args._.map(String)].join(" "));
  const timeout = Number(args.timeout ?? 3600), jobs = Number(args.jobs ?? 2);
  const subjects: readonly Subject[] = args.small
    ? smallRuns.filter(({ name }) => wanted(name))
      .map((it) => ({ ...it, images: undefined }))
    : chosen([]).filter((it) => wanted(nameOf(it))).map((it) => bootSubject(it, timeout));
  if (subjects.length === 0 || !(timeout > 0) || !(jobs >= 1)) {
    const names = args.small ? smallRuns.map(({ name }) => name) : chosen([]).map(nameOf);
    console.error(`digest: nothing is chosen; there are: ${names.join(", ")}`);
    return 2;
  }
  endWithChildren();
  const file = args.small ? SMALL : BOOTS, before = readRecording(file);
  const found = new Map<string, Outcome>();
  console.log(row("guest", "instructions", "s", "result"));
  await atOnce(subjects, args.small ? 1 : jobs, async (it) => {
    const started = performance.now();
    const outcome = await (args.record ? record(it) : judge(it, before[it.name]));
    found.set(it.name, outcome);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(row(
      it.name,
      String(outcome.seen?.places.at(-1)?.position ?? ""),
      seconds,
      outcome.verdict,
    ));
  });
  if (args.record) {
    const order = args.small ? smallRuns.map((it) => it.name) : chosen([]).map(nameOf);
    const merged: [string, Recorded | undefined][] = order.map((name) => [
      name,
      found.get(name)?.seen ?? before[name],
    ]);
    writeRecording(
      file,
      Object.fromEntries(merged.filter(([, recorded]) => recorded)) as Recording,
    );
  }
  const outcomes = [...found.values()];
  const bad = outcomes.filter((outcome) => outcome.bad).length;
  const compared = outcomes.filter((outcome) => outcome.seen).length;
  console.log(
    `\n${subjects.length} guests, ${compared} ${
      args.record ? "recorded" : "compared"
    }, ${bad} differ or failed`,
  );
  return bad ? 1 : compared ? 0 : 2;
}

if (import.meta.main) {
  Deno.exit(
    await main().catch((error) => {
      console.error((error as Error).message);
      return 2;
    }),
  );
}
