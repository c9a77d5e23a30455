/**
 * Same seed, same hash: guests of several vCPUs that are typed to come to the same however often they
 * run, in whatever slices, at stops or without them, and whatever else the computer does. Another
 * interleaving comes to another state, and the guest to the same results.
 *
 * @module
 */
import { filesOf, type Kernel, KERNELS, startBoot } from "../../scripts/boots.ts";
import { crowdOf } from "../../src/debug/testing/crowd.ts";
import { type Configuration, settle } from "../../src/debug/testing/hosts.ts";
import { advance } from "../../src/debug/lockstep.ts";
import { Random } from "../../src/debug/testing/states.ts";
import type { Interleave } from "../../src/xen/scheduler.ts";
import { randomSlices } from "../../src/xen/testing_slices.ts";
import { diffStates } from "../../src/xen/state_diff.ts";
import { type Running, running } from "./subjects.ts";

/** What is typed when the console has shown a text since the line before. */
interface Line {
  readonly shows: string;
  readonly type: string;
  /** At a stop there, so many instructions of the last vCPU later; while the guest runs if not given. */
  readonly after?: number;
}
/** What the seed and the interleaving of a run are. */
interface Ways {
  readonly seed: number;
  readonly interleave: Interleave;
}

/** A guest of several vCPUs, and what is typed to it. */
export interface Typed {
  /** "same 686-pae PVH 2 vCPUs on 1 intel hap". */
  readonly name: string;
  readonly files: readonly string[];
  /** The last line types nothing: the run ends there. */
  readonly script: readonly Line[];
  readonly ways: readonly [Ways, Ways];
  open(ways: Ways): Promise<Running>;
  /** What the guest has found out, from its console. */
  results(text: string): unknown;
  /** What `results` are in every run. */
  readonly expected: unknown;
}

/** Differences of states that are told. */
const TOLD = 12;
/** How a run is driven: by the host's own loop in slices of the clock or of a seed, or part by part. */
const DRIVES = ["clock", "slices", "parts"] as const;

/** What a run came to. */
interface Played {
  readonly hash: string;
  readonly place: string;
  readonly text: string;
  readonly state: Uint8Array;
}

/** One run; `n` draws the conditions that nothing may depend on. */
async function play({ script, open }: Typed, ways: Ways, n: number): Promise<Played> {
  const side = await open(ways), { hv, dom, host, inner } = side, random = new Random(1 + n);
  const drive = DRIVES[n % DRIVES.length];
  // Some runs are cut often.
  if (drive === "slices") host.attention = randomSlices(1 + n, random.pick([7, 300, 20_000]));
  let at = 0, tail = "", reached = () => {};
  dom.console.onOutput((output) => {
    tail += output;
    const line = script[at];
    if (!line || !tail.includes(line.shows)) return;
    tail = "";
    if (line.after !== undefined || !line.type) {
      inner.pause();
      return reached();
    }
    at++;
    dom.console.write(line.type);
  });
  const goOn = async () => {
    let there = false;
    const pause = new Promise<void>((resolve) =>
      reached = () => {
        there = true;
        resolve();
      }
    );
    if (drive === "parts") {
      for (let n = 0; !there && !inner.ended; n++) {
        advance(dom, 1 + random.below(random.pick([40, 2000, 2_000_000])));
        if (n % 64 === 0) await settle(1);
      }
    } else {
      dom.unpause();
      await Promise.race([pause, dom.ended]);
    }
    await settle();
    if (inner.ended) throw new Error(`the guest ended: ${dom.console.text.slice(-300)}`);
  };
  try {
    for (;;) {
      await goOn();
      const { after = 0, type } = script[at];
      if (!type) break;
      at++;
      if (after) await dom.vcpus.at(-1)!.step(after);
      dom.console.write(type);
    }
    return {
      hash: hv.stateHash(),
      place: `${dom.vcpus.map(({ instructions }) => instructions).join(" ")} instructions, ${
        host.processors.map(({ now }) => now).join(" ")
      } ns`,
      text: dom.console.text,
      state: hv.save(),
    };
  } finally {
    await hv.close();
  }
}

/** What runs came to. */
export interface Same {
  readonly runs: number;
  readonly good: number;
  readonly problems: readonly string[];
}

/** What differs, in a few lines. */
const differences = (a: Uint8Array, b: Uint8Array): string[] =>
  diffStates(a, b).slice(0, TOLD).map(({ block, path, values }) =>
    `  ${block} ${path}: ${values.join(" | ")}`
  );

/** So many runs of one interleaving, and one of another. */
export async function playSame(typed: Typed, runs: number, seed: number): Promise<Same> {
  const { ways: [ways, others], results, expected } = typed;
  const problems: string[] = [];
  const tell = (name: string, what: string, a: unknown, b: unknown) => {
    const words = [a, b].map((it) => JSON.stringify(it));
    if (words[0] !== words[1]) problems.push(`${name}: ${what}: ${words.join(" | ")}`);
    return words[0] === words[1];
  };
  let first: Played | undefined, good = 0;
  for (let n = 0; n < runs; n++) {
    const name = `run ${n + 1} of ${runs}, by ${DRIVES[(seed + n) % DRIVES.length]}`;
    const played = await play(typed, ways, seed + n);
    first ??= played;
    const same = [
      tell(name, "results", results(played.text), expected),
      tell(name, "place", played.place, first.place),
      tell(name, "console", played.text, first.text),
      tell(name, "hash", played.hash, first.hash),
    ];
    if (same.every(Boolean)) good++;
    else problems.push(...differences(first.state, played.state));
  }
  const other = await play(typed, others, seed);
  tell("another interleaving", "results", results(other.text), expected);
  if (other.hash === first?.hash || other.place === first?.place) {
    problems.push(`another interleaving: the same state, at ${other.place}`);
  }
  return { runs, good, problems };
}

// --- a crowd, which says in capitals what is typed ---

const WORDS = ["several", "vcpus", "hear"] as const;
const capitals = (text: string) => text.replace(/[^A-Z]/g, "");
const CROWD_WAYS = [
  { seed: 1, interleave: { min: 1, max: 60 } },
  { seed: 2, interleave: { min: 5, max: 400 } },
] as const;

const crowd = (way: Configuration, vcpus: number, cpus: number): Typed => ({
  name: `same crowd ${vcpus} vCPUs on ${cpus} ${way.cpu} ${way.paging}`,
  files: [],
  script: [
    { shows: "a", type: WORDS[0] },
    { shows: WORDS[0].at(-1)!.toUpperCase(), type: WORDS[1], after: 500 },
    { shows: WORDS[1].at(-1)!.toUpperCase(), type: WORDS[2], after: 0 },
    { shows: WORDS[2].at(-1)!.toUpperCase(), type: "" },
  ],
  ways: CROWD_WAYS,
  open: async (ways) => running(await crowdOf(way, vcpus, { cpus, ...ways })),
  results: capitals,
  expected: WORDS.join("").toUpperCase(),
});

// --- real kernels, with a shell ---

const PROMPT = "typed> ";
const SHELL = `export PATH=/bin PS1="${PROMPT}"
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec sh
`;
const LINUX_WAYS = [
  { seed: 1, interleave: { min: 2000, max: 10_000 } },
  { seed: 2, interleave: { min: 300, max: 4000 } },
] as const;
/** Several work at a time; what they find is the same whoever is first. */
const WORK = "(for i in 1 2 3 4; do (dd if=/dev/zero bs=16k count=$i 2>/dev/null | sha256sum " +
  ">/tmp/$i) & done; wait; cat /tmp/? | md5sum | cut -c1-32)";

/** Of four times so many zeroes, by md5sum of what sha256sum says. */
const SUMS = "df818a9da142ca2408ae5c63229d549d";

type Virtual = Configuration & { readonly paging: "hap" | "shadow" };
const linux = (kernel: Kernel, way: Virtual, vcpus: number, cpus: number): Typed => ({
  name: `same ${kernel.name} ${vcpus} vCPUs on ${cpus} ${way.cpu} ${way.paging}`,
  files: Object.values(filesOf({ kernel })),
  script: [
    { shows: PROMPT, type: 'echo "processors $(nproc)"\n' },
    { shows: `processors ${vcpus}\r`, type: `${WORK}\n`, after: 0 },
    { shows: PROMPT, type: 'echo "answer $((6*', after: 20_000 },
    { shows: "answer", type: '7))"\n', after: 1000 },
    { shows: "answer 42\r", type: "" },
  ],
  ways: LINUX_WAYS,
  open: async (ways) =>
    running(await startBoot({ kernel, ...way, vcpus, cpus }, "own", { ...ways, first: SHELL })),
  results: (text) =>
    text.split(/[\r\n]+/).filter((line) => /^(processors \d|answer \d|[0-9a-f]{32}$)/.test(line)),
  expected: [`processors ${vcpus}`, SUMS, "answer 42"],
});

const HAP = { cpu: "intel", paging: "hap" } as const,
  SHADOW = { cpu: "amd", paging: "shadow" } as const;
const pae = KERNELS.find(({ name }) => name === "686-pae PVH")!;

/** All of them. */
export const typedGuests: readonly Typed[] = [
  crowd(HAP, 2, 1),
  crowd({ cpu: "amd", paging: "hap" }, 2, 2),
  crowd({ cpu: "intel", paging: "shadow" }, 4, 2),
  crowd(SHADOW, 4, 1),
  crowd({ cpu: "amd", paging: "bare" }, 4, 4),
  ...[2, 4].flatMap((vcpus) => [1, 2].map((cpus) => linux(pae, HAP, vcpus, cpus))),
];
