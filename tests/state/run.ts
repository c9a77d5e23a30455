/**
 * Tries the law of saved states (save, run on, load, run on = run on) at stops of every kind, and loads
 * states whose contents were changed.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { endWithChildren, runChild } from "../../scripts/boots.ts";
import { configurations } from "../../src/debug/testing/hosts.ts";
import { tryLaw } from "./law.ts";
import { mutateStates } from "./mutated.ts";
import { playSame, typedGuests } from "./same.ts";
import { subjects } from "./subjects.ts";

const HELP = `deno task law [WORDS…] [options]

Save, run on, load, run on = run on: small guests and real kernels are brought to stops of kinds and at
places that a seed draws. There the host is saved and runs on; the state is loaded into the same host
and into a fresh one, which run on as far; and one that was never saved or stopped does, too. All must
come to the same. Then states with changed contents are loaded: each is refused by name, or is a state. And guests of
several vCPUs run again and again, typed to, in slices of every length: "same" alone are these.

  WORDS             only what has all of them in its name: "demo amd", "changed", "same"
  --trials N        of the law, over all guests; 500 if not given
  --mutations N     of states, over all configurations; 2000 if not given
  --runs N          of each guest that is typed to; 10 if not given
  --seed N          draws kinds and places; 1 if not given
  --jobs N          processes at a time; 2 if not given
  --timeout N       seconds for each; 3600 if not given

Exit status 1 when something was unequal or failed, 2 when nothing was tried or an image is missing.`;

/** What was tried of one part, as its process writes it. */
interface Result {
  readonly tried: number;
  readonly good: number;
  /** What it was made of: kinds of stops, refused and taken. */
  readonly counts: Readonly<Record<string, number>>;
  readonly problems: readonly string[];
}

/** What a process of its own does. */
interface Part {
  readonly name: string;
  readonly of: "law" | "mutations" | "same";
  readonly files: readonly string[];
  run(times: number, seed: number): Promise<Result>;
}

const PARTS: readonly Part[] = [
  ...subjects.map((subject): Part => ({
    name: subject.name,
    of: "law",
    files: subject.files,
    async run(times, seed) {
      const { trials, equal, kinds, problems } = await tryLaw(subject, times, seed);
      return { tried: trials, good: equal, counts: kinds, problems };
    },
  })),
  ...configurations.map((way): Part => ({
    name: `changed ${way.cpu} ${way.paging}`,
    of: "mutations",
    files: [],
    async run(times, seed) {
      const { mutations, refused, taken, problems } = await mutateStates(way, times, seed);
      const good = mutations - problems.length;
      return { tried: mutations, good, counts: { refused, taken }, problems };
    },
  })),
  ...typedGuests.map((typed): Part => ({
    name: typed.name,
    of: "same",
    files: typed.files,
    async run(times, seed) {
      const { runs, good, problems } = await playSame(typed, times, seed);
      // What another interleaving came to is no run of its own.
      const bad = good === runs && problems.length ? 1 : 0;
      return { tried: runs, good: good - bad, counts: { runs }, problems };
    },
  })),
];

/** So many in all, each part its share. */
const share = (total: number, parts: readonly Part[], part: Part): number => {
  const own = parts.filter((it) => it.of === part.of), n = own.indexOf(part);
  return Math.floor(total * (n + 1) / own.length) - Math.floor(total * n / own.length);
};

function exists(file: string): boolean {
  try {
    return Deno.statSync(file).isFile;
  } catch {
    return false;
  }
}

const add = (sum: Record<string, number>, more: Readonly<Record<string, number>>) => {
  for (const [key, n] of Object.entries(more)) sum[key] = (sum[key] ?? 0) + n;
};
const listed = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts).sort((a, b) => b[1] - a[1]).map(([key, n]) => `${key} ${n}`).join(", ");

async function main(): Promise<number> {
  const args = parseArgs(Deno.args, {
    string: ["_", "trials", "mutations", "seed", "jobs", "runs", "timeout", "part", "times", "to"],
    boolean: ["help"],
    default: {
      trials: "500",
      mutations: "2000",
      runs: "10",
      seed: "1",
      jobs: "2",
      timeout: "3600",
    },
  });
  if (args.help) {
    console.log(HELP);
    return 0;
  }
  const { trials: ofLaw, mutations: changes, ...rest } = args;
  const numbers = [ofLaw, changes, rest.runs, rest.seed, rest.jobs, rest.timeout].map(Number);
  const [trials, mutations, runs, seed, jobs, timeout] = numbers;
  if (args.part !== undefined) {
    const part = PARTS.find(({ name }) => name === args.part)!;
    await Deno.writeTextFile(args.to!, JSON.stringify(await part.run(Number(args.times), seed)));
    return 0;
  }
  const words = args._.map(String).join(" ").split(" ").filter(Boolean);
  const chosen = PARTS.filter(({ name }) => words.every((word) => name.split(" ").includes(word)));
  if (chosen.length === 0 || !numbers.every((n) => Number.isSafeInteger(n) && n >= 0) || jobs < 1) {
    console.error(
      `law: nothing is chosen, or a number is none; there are: ${
        PARTS.map(({ name }) => name).join(", ")
      }\n\n${HELP}`,
    );
    return 2;
  }
  endWithChildren();
  const none = () => ({ tried: 0, good: 0 });
  const sums = { law: none(), mutations: none(), same: none() };
  const counts = { law: {}, mutations: {}, same: {} };
  const times = (part: Part) =>
    part.of === "same" ? runs : share(part.of === "law" ? trials : mutations, chosen, part);
  let failed = 0, missing = 0;
  const left = [...chosen];
  const worker = async () => {
    for (let part = left.shift(); part; part = left.shift()) {
      const { name, of } = part, number = times(part);
      if (number === 0) continue;
      const lack = part.files.filter((file) => !exists(file)), started = performance.now();
      if (lack.length) {
        missing++;
        console.log(`${name.padEnd(28)} not tried: there is no ${lack.join(", ")}`);
        continue;
      }
      const result = await runChild<Result>(
        import.meta.filename!,
        ["--part", name, "--times", `${number}`, "--seed", `${seed}`],
        timeout,
      );
      const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6);
      if (typeof result === "string") {
        failed++;
        console.log(`${name.padEnd(28)} ${seconds} s  failed: ${result}`);
        continue;
      }
      const { tried, good } = result;
      console.log(`${name.padEnd(28)} ${seconds} s  ${good} of ${tried}: ${listed(result.counts)}`);
      for (const problem of result.problems) console.log(`  ${problem}`);
      sums[of].tried += tried;
      sums[of].good += good;
      add(counts[of], result.counts);
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  console.log(`\nkinds of stops: ${listed(counts.law)}`);
  const { law, mutations: changed, same } = sums;
  console.log(
    `law: ${law.good} of ${law.tried} equal; changed states: ${changed.good} of ${changed.tried} ` +
      `refused by name or equal (${
        listed(counts.mutations)
      }); same: ${same.good} of ${same.tried}; seed ${seed}; ${failed} parts failed, ` +
      `${missing} lack images`,
  );
  if (failed || Object.values(sums).some(({ good, tried }) => good < tried)) return 1;
  return missing || Object.values(sums).every(({ tried }) => tried === 0) ? 2 : 0;
}

if (import.meta.main) {
  Deno.exit(
    await main().catch((error) => {
      console.error((error as Error).message);
      return 2;
    }),
  );
}
