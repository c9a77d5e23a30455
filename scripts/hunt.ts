/**
 * What the scripts that hunt a race share: options, a run for each seed, how many of them found it, and
 * the first that did run again from its seed.
 *
 * @module
 */
import { parseArgs } from "@std/cli";

/** Lengths of turns in instructions. */
export interface Turns {
  readonly min: number;
  readonly max: number;
}

/** How a run of one seed ended that found the race; equal if it was the same to the instruction. */
export interface Found {
  /** Instructions of the host where it was found. */
  readonly instruction: number;
  /** A hash of the whole host there. */
  readonly hash: string;
  /** What was seen, and the interleaving around it. */
  readonly text: string;
}

/** What all of them are told. */
export interface HuntOptions {
  readonly seeds: readonly number[];
  readonly turns: readonly Turns[];
  readonly vcpus: number;
  readonly cpus: number;
  readonly cpu: "intel" | "amd";
  readonly again: number;
  /** The options that are one script's own. */
  readonly own: Readonly<Record<string, string | undefined>>;
}

const help = (turns: string) =>
  `  --seeds N        how many seeds are tried, from --from on (20)
  --from N         the first of them (1)
  --turns LENGTHS  instructions in a turn: MIN-MAX, or several such with commas (${turns})
  --vcpus N        virtual processors of the guest (2)
  --cpus N         processors of the host; 1 has all vCPUs run on one (2)
  --vendor NAME    intel or amd (intel)
  --again N        how often the first that was found is run again from its seed (10)
  --help           this`;

function fail(message: string): never {
  console.error(message);
  Deno.exit(2);
}

/** A whole number from `min` to `max`. */
export function number(text: string, what: string, min: number, max: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  fail(`--${what}: a whole number from ${min} to ${max} was expected, not ${text}`);
}

/** One of some words; undefined if it is not given. */
export function word<const W extends string>(
  text: string | undefined,
  what: string,
  ...known: readonly W[]
): W | undefined {
  const found = known.find((one) => one === text);
  if (found !== undefined || text === undefined) return found;
  fail(`--${what}: ${known.join(" or ")} was expected, not ${text}`);
}

function turnsOf(text: string): Turns {
  const [min, max = min] = text.split("-", 2).map((part) => number(part, "turns", 1, 1_000_000));
  if (min <= max) return { min, max };
  fail(`--turns: MIN-MAX was expected, not ${text}`);
}

/**
 * The command line of a script that hunts.
 *
 * @param usage what it does, for `--help`
 * @param turns what `--turns` is if it is not given
 * @param own its own options, each with a line of help
 */
export function huntOptions(
  usage: string,
  turns: string,
  own: Readonly<Record<string, string>>,
): HuntOptions {
  const names = ["seeds", "from", "turns", "vcpus", "cpus", "vendor", "again"];
  const given = parseArgs(Deno.args, {
    boolean: ["help"],
    string: [...names, ...Object.keys(own)],
    unknown: (word) => fail(`${word} is no option of this script; --help tells them`),
  });
  if (given.help) {
    const more = Object.entries(own).map(([name, line]) =>
      `  ${`--${name}`.padEnd(15)}  ${line}\n`
    );
    console.log(`${usage}\n\n${more.join("")}${help(turns)}`);
    Deno.exit(0);
  }
  const of = (name: string, fallback: number, min: number, max: number) =>
    number(given[name] ?? `${fallback}`, name, min, max);
  const seeds = of("seeds", 20, 1, 100_000), from = of("from", 1, 0, 2 ** 31);
  return {
    seeds: Array.from({ length: seeds }, (_, n) => from + n),
    turns: (given.turns ?? turns).split(",").map(turnsOf),
    vcpus: of("vcpus", 2, 2, 16),
    cpus: of("cpus", 2, 1, 8),
    cpu: word(given.vendor, "vendor", "intel", "amd") ?? "intel",
    again: of("again", 10, 1, 1000),
    own: Object.fromEntries(Object.keys(own).map((name) => [name, given[name]])),
  };
}

const grouped = (n: number) => n.toLocaleString("en");
const lengthText = ({ min, max }: Turns) =>
  min === max ? grouped(min) : `${grouped(min)} to ${grouped(max)}`;

const placeText = (found: Found | undefined) =>
  found ? `instruction ${grouped(found.instruction)}, state ${found.hash}` : "nothing";

/**
 * Tries each seed with each length of turns, shows the first that finds the race, and runs it again.
 *
 * @returns whether it was found, and ran again the same each time
 */
export async function hunt(
  { seeds, turns: series, again }: HuntOptions,
  run: (seed: number, turns: Turns) => Promise<Found | undefined>,
): Promise<boolean> {
  let first: { found: Found; seed: number; turns: Turns } | undefined;
  for (const turns of series) {
    let hits = 0, longest = 0, total = 0;
    for (const seed of seeds) {
      const began = performance.now(), found = await run(seed, turns);
      const seconds = (performance.now() - began) / 1000;
      total += seconds;
      if (!found) continue;
      hits++;
      longest = Math.max(longest, seconds);
      if (first) continue;
      first = { found, seed, turns };
      console.log(`seed ${seed}, turns of ${lengthText(turns)}:\n\n${found.text}\n`);
    }
    const most = hits ? `, none of these in more than ${longest.toFixed(1)} s` : "";
    console.log(
      `turns of ${
        lengthText(turns)
      } instructions: ${hits} of ${seeds.length} seeds find it${most}; ` +
        `all took ${total.toFixed(1)} s`,
    );
  }
  if (!first) {
    console.log("no seed found it: more of them (--seeds), or shorter turns (--turns), may");
    return false;
  }
  const { found, seed, turns } = first;
  for (let n = 1; n <= again; n++) {
    const other = await run(seed, turns);
    if (other?.instruction === found.instruction && other.hash === found.hash) continue;
    console.log(`SEED ${seed} FOUND ${placeText(found)}; RUN AGAIN ${placeText(other)}`);
    return false;
  }
  console.log(
    `seed ${seed} again, ${again} of ${again} times: ${placeText(found)}`,
  );
  return true;
}
