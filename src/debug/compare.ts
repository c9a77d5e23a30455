/**
 * One guest on two configurations: how their exits differ, and whether the guest could tell.
 *
 * @module
 */
import { demoGuest } from "../builder/demo.ts";
import { attention } from "../xen/world_attention.ts";
import { type GuestDomain, subjectOf } from "./domain.ts";
import { differenceText, type DigestDifference, GuestDigest } from "./digest.ts";
import { Hypervisor } from "./hypervisor.ts";
import { advance } from "./lockstep.ts";
import type { DomainOptions, StartOptions } from "./options.ts";
import { lineOf } from "./views/code.ts";
import { toCount } from "./check.ts";
import {
  bold,
  counted,
  grouped,
  hex,
  INSPECT,
  type InspectOptions,
  tableText,
  timeText,
} from "./values.ts";

/** A host and a guest on it. */
export interface Configuration {
  /** What it is called in the result; made from what the two do not share if not given. */
  readonly name?: string;
  /** What the host is started with. */
  readonly host?: StartOptions;
  /** The guest; the built-in demo guest if it names no kernel. */
  readonly domain?: Partial<DomainOptions>;
}

/** How far a comparison goes. */
export interface CompareOptions {
  /** Until the console shows this text, or so many instructions were executed. */
  readonly until?: string | number;
  /** Most instructions, whatever the console shows; 20 thousand million if not given. */
  readonly instructions?: number;
  /** Ends the comparison early, with an error. */
  readonly signal?: AbortSignal;
}

/** An exit as it is kept for comparison. */
export interface ComparedExit {
  /** Its kind, as {@linkcode kinds} has it. */
  readonly kind: string;
  /** Instructions before it. */
  readonly count: number;
  /** Guest time in nanoseconds. */
  readonly time: number;
  /** In words. */
  readonly text: string;
  /** The instruction that left, or is next. */
  readonly instruction?: string;
  /** The vendor's record of the vCPU at it, every field by its name. */
  readonly raw?: Record<string, bigint> | null;
}

/** One of the two runs. */
export interface ComparedRun {
  /** What the configuration is called. */
  readonly name: string;
  /** Instructions that the guest retired. */
  readonly instructions: number;
  /** Guest time in nanoseconds. */
  readonly time: number;
  /** Exits by kind, counted. */
  readonly exits: Readonly<Record<string, number>>;
  /** All that the guest wrote to its console. */
  readonly console: string;
  /** What the guest can see of itself at the end. */
  readonly state: GuestDigest;
  /** How the run ended: "until", "instructions", or what became of the guest. */
  readonly end: string;
}

const LIMIT = 20e9;
/** Instructions between two looks at whether somebody wants it to end. */
const SLICE = 50_000;
/** Keys that take the demo guest through all it has. */
const DEMO_KEYS = "ctmfdq";

/** The result of {@linkcode compare}. */
export class Comparison {
  /** @ignore Made by {@linkcode compare}. */
  constructor(
    /** The two runs, in the order of the configurations. */
    readonly runs: readonly [ComparedRun, ComparedRun],
    /** The first exits that are not the same on both; undefined if all are. */
    readonly first: readonly [ComparedExit | undefined, ComparedExit | undefined] | undefined,
    /** How many exits were the same before it. */
    readonly same: number,
    /** Where the states that the guest can see differ at the end. */
    readonly state: readonly DigestDifference[],
  ) {}

  /** The guest came to the same state and wrote the same text. */
  get equal(): boolean {
    return this.state.length === 0 && this.consoleDifference === undefined;
  }
  /** Where the consoles' texts part, in characters from the start; undefined if they do not. */
  get consoleDifference(): number | undefined {
    const [a, b] = this.runs.map((r) => r.console);
    if (a === b) return undefined;
    let at = 0;
    while (at < a.length && a[at] === b[at]) at++;
    return at;
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const [a, b] = this.runs, names = [a.name, b.name] as const;
    const kinds = [...new Set([...Object.keys(a.exits), ...Object.keys(b.exits)])];
    const count = (run: ComparedRun, kind: string) => run.exits[kind] ?? 0;
    kinds.sort((x, y) => count(a, y) + count(b, y) - count(a, x) - count(b, x));
    const total = (run: ComparedRun) => Object.values(run.exits).reduce((sum, n) => sum + n, 0);
    const rows = kinds.map((k) => [k, count(a, k), count(b, k), count(b, k) - count(a, k)]);
    const lines = [
      bold(`${names[0]} and ${names[1]}`, options),
      tableText(["exit", ...names, "difference"], [
        ...rows,
        ["all", total(a), total(b), total(b) - total(a)],
      ]),
      ...this.runs.map((r) =>
        `${r.name}: ${counted(r.instructions, "instruction")}, guest time ${
          timeText(r.time)
        }, ended by ${r.end}`
      ),
      ...this.#firstLines(),
      ...this.#consoleLines(),
    ];
    if (this.state.length === 0) lines.push("the guest's state is the same");
    else lines.push("the guest's state differs:", indent(differenceText(this.state, names)));
    return lines.join("\n");
  }

  #firstLines(): string[] {
    if (!this.first) return [`the exits are the same, ${grouped(this.same)} of them`];
    const lines = [`after ${counted(this.same, "exit")} the same on both:`];
    this.first.forEach((exit, i) => {
      const { name } = this.runs[i];
      if (!exit) return lines.push(`  ${name}: no more`);
      lines.push(
        `  ${name}: ${exit.text}, after ${counted(exit.count, "instruction")}`,
        `    ${exit.instruction}`,
      );
    });
    const [a, b] = this.first.map((exit) => exit?.raw ?? {});
    // Of the same vendor: fields that differ. Of two: what each has, zeroes apart.
    const shared = `${Object.keys(a)}` === `${Object.keys(b)}`;
    const fields = shared
      ? Object.keys(a).filter((n) => a[n] !== b[n]).map((n) => [n, text(a[n]), text(b[n])])
      : [];
    if (fields.length) {
      lines.push(indent(tableText(["field", ...this.runs.map((r) => r.name)], fields)));
    }
    if (!shared) {
      [a, b].forEach((raw, i) => {
        const set = Object.entries(raw).filter(([name, v]) => v !== 0n && EXIT_FIELD.test(name));
        const shown = set.map(([name, v]) => `${name} ${hex(v)}`).join("  ");
        if (shown) lines.push(`  ${this.runs[i].name}: ${shown}`);
      });
    }
    return lines;
  }

  #consoleLines(): string[] {
    const at = this.consoleDifference;
    if (at === undefined) return ["the console's text is the same"];
    const part = (run: ComparedRun) =>
      JSON.stringify(run.console.slice(Math.max(0, at - 20), at + 40));
    return [
      `the console's text differs from character ${grouped(at)} on:`,
      ...this.runs.map((r) => `  ${r.name}: ${part(r)}`),
    ];
  }
}

/** Fields of a vendor's record that say why the guest left. */
const EXIT_FIELD =
  /^exit(?!Controls|Msr)|^idtVectoring|^guestLinearAddress|^guestPhysicalAddress|^nextRip/;
const text = (value: bigint | undefined) => value === undefined ? "" : hex(value);
const indent = (lines: string) => lines.split("\n").map((line) => `  ${line}`).join("\n");

/** What two configurations do not share, as their names. */
function namesOf(a: Configuration, b: Configuration): [string, string] {
  const flat = (c: Configuration): Record<string, unknown> => {
    return { cpu: "intel", paging: "hap", ...c.host, ...c.domain };
  };
  const [x, y] = [flat(a), flat(b)];
  const differing = Object.keys({ ...x, ...y }).filter((key) =>
    JSON.stringify(x[key]) !== JSON.stringify(y[key])
  );
  const name = (own: Record<string, unknown>) =>
    differing.map((key) => {
      const v = own[key] ?? "default";
      const value = typeof v === "object" ? JSON.stringify(v) : String(v);
      return key === "cpu" || key === "paging" ? value : `${key} ${value}`;
    }).join(", ") || `${x.cpu} ${x.paging}`;
  const names: [string, string] = [a.name ?? name(x), b.name ?? name(y)];
  return names[0] === names[1] ? [`${names[0]} (1)`, `${names[1]} (2)`] : names;
}

/**
 * A configuration from a word, as the shell and scripts take it: parts joined by `+`, each a vendor
 * ("intel", "amd"), a kind of paging ("hap", "shadow"), `cpuid:MODEL`, or `seed:N`.
 *
 * @throws {TypeError} naming what was expected
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { configurationOf } from "xvm";
 *
 * const { host, domain } = configurationOf("amd+shadow");
 * assertEquals([host, domain], [{ cpu: "amd" }, { paging: "shadow" }]);
 * ```
 */
export function configurationOf(word: string): Configuration {
  const host: Record<string, unknown> = {}, domain: Record<string, unknown> = {};
  for (const part of word.split("+")) {
    const [key, value] = part.split(":");
    if (part === "intel" || part === "amd") host.cpu = part;
    else if (part === "hap" || part === "shadow") domain.paging = part;
    else if (key === "cpuid" && value) domain.cpuid = value;
    else if (key === "seed" && Number.isSafeInteger(Number(value))) host.seed = Number(value);
    else {
      throw new TypeError(
        `a configuration is written with intel, amd, hap, shadow, cpuid:MODEL and seed:N, joined by ` +
          `+; ${JSON.stringify(part)} was given`,
      );
    }
  }
  return { host, domain } as Configuration;
}

/** The smallest host a domain fits on, unless the configuration says more. */
const HOST = { memory: "512M", seed: 1 } as const;

async function open({ host, domain = {} }: Configuration, name: string) {
  const demo = domain.kernel === undefined;
  const hv = await Hypervisor.start({ ...HOST, ...(demo ? { memory: "64M" } : {}), ...host });
  try {
    const dom = await hv.createDomain({
      ...(demo ? { memory: "16M", name: "demo" } : {}),
      ...domain,
      kernel: domain.kernel ?? demoGuest().image,
    });
    return { hv, dom, demo };
  } catch (error) {
    await hv.close();
    throw new Error(`${name}: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Lets a guest run until its console shows a text, it has executed so many instructions, or it ended.
 *
 * @returns "until", "instructions", or what became of the guest
 */
export async function runUntil(
  dom: GuestDomain,
  options: CompareOptions & { readonly keys?: string } = {},
): Promise<string> {
  const { until, keys, signal } = options, { inner } = subjectOf(dom);
  const limit = Math.min(
    typeof until === "number" ? until : Infinity,
    options.instructions ?? LIMIT,
  );
  toCount(limit, "instructions", 1, Number.MAX_SAFE_INTEGER);
  let tail = dom.console.text, found = typeof until === "string" && tail.includes(until), typed = 0;
  let asks = false;
  const stop = dom.console.onOutput((output) => {
    tail += output;
    if (keys && tail.endsWith("demo> ") && typed < keys.length) {
      // The key is pressed when the guest stands still, at this very instruction.
      asks = true;
      inner.pause();
    }
    if (typeof until !== "string") return;
    if (tail.includes(until)) {
      found = true;
      inner.pause();
    }
    tail = tail.slice(-Math.max(64, until.length));
  });
  try {
    while (!found && !inner.ended && inner.count < limit) {
      signal?.throwIfAborted();
      const ran = advance(dom, Math.min(SLICE, limit - inner.count));
      if (asks) {
        asks = false;
        dom.console.write(keys![typed++]);
      } else if (ran === 0 && !found && !inner.ended) return "waiting for what never comes";
      await attention.turn();
    }
  } finally {
    stop();
  }
  return found ? "until" : inner.ended ? dom.state : "instructions";
}

/**
 * The exits of two runs that go on at the same time, compared as they come: only those are kept that
 * the other run has not come to yet.
 */
export class ExitPairs {
  /** How many were the same. */
  same = 0;
  /** The first that were not; undefined where a run had no more. */
  first: readonly [ComparedExit | undefined, ComparedExit | undefined] | undefined;
  /** Exits of the run that is ahead; those before `#at` have been compared. */
  readonly #ahead: ComparedExit[] = [];
  #at = 0;
  #run: 0 | 1 = 0;
  readonly #ended = [false, false];

  /** How many are kept. */
  get kept(): number {
    return this.#ahead.length;
  }

  /** An exit of run 0 or 1; `make` makes its record, if it is still wanted. */
  add(run: 0 | 1, make: () => ComparedExit): void {
    if (this.first) return;
    const exit = make(), expected = this.#ahead[this.#at];
    if (!expected) this.#run = run;
    if (run === this.#run) {
      this.#ahead.push(exit);
      if (this.#ended[1 - run]) this.#differ(undefined);
    } else if (sameExit(expected, exit)) {
      this.same++;
      // In one go: taking each from the front would move all the others.
      if (++this.#at === this.#ahead.length || this.#at === COMPARED) this.#forget();
    } else this.#differ(exit);
  }
  /** That run has no more. */
  end(run: 0 | 1): void {
    this.#ended[run] = true;
    if (this.#run !== run && this.#at < this.#ahead.length) this.#differ(undefined);
  }

  /** The run that is behind has `exit`, or no more, where the other is elsewhere. */
  #differ(exit: ComparedExit | undefined): void {
    const ahead = this.#ahead[this.#at];
    this.first = this.#run === 0 ? [ahead, exit] : [exit, ahead];
    this.#at = this.#ahead.length;
    this.#forget();
  }
  #forget(): void {
    this.#ahead.splice(0, this.#at);
    this.#at = 0;
  }
}
/** Compared exits that are kept at most, so that they go together. */
const COMPARED = 1000;

type Opened = Awaited<ReturnType<typeof open>>;

/** One of the two runs, to its end. */
async function record(
  { dom, demo }: Opened,
  name: string,
  options: CompareOptions,
  pairs: ExitPairs,
  run: 0 | 1,
): Promise<ComparedRun> {
  dom.trace("any", {}, (stop) => {
    const { kind, position: { count, time } } = stop;
    pairs.add(run, () => ({ kind, count, time, text: stop.describe() }));
  });
  const end = await runUntil(dom, demo ? { ...options, keys: DEMO_KEYS } : options);
  pairs.end(run);
  const { instructions, time } = dom.statistics();
  return {
    name,
    instructions,
    time,
    exits: { ...dom.exits },
    console: dom.console.text,
    state: GuestDigest.of(dom),
    end,
  };
}

/** Both runs, turn about; if one fails, neither goes on. */
async function recordBoth(
  sides: readonly [Configuration, Configuration],
  names: readonly [string, string],
  options: CompareOptions,
): Promise<{ runs: readonly [ComparedRun, ComparedRun]; pairs: ExitPairs }> {
  const pairs = new ExitPairs(), failed = new AbortController();
  const signals = [failed.signal, ...options.signal ? [options.signal] : []];
  const one = await open(sides[0], names[0]);
  try {
    const other = await open(sides[1], names[1]);
    try {
      const both = [one, other].map(async (opened, n) => {
        try {
          const signal = AbortSignal.any(signals);
          return await record(opened, names[n], { ...options, signal }, pairs, n as 0 | 1);
        } catch (error) {
          failed.abort(error);
          throw error;
        }
      });
      await Promise.allSettled(both);
      return { runs: await Promise.all(both) as [ComparedRun, ComparedRun], pairs };
    } finally {
      await other.hv.close();
    }
  } finally {
    await one.hv.close();
  }
}

/** The exit of that number again, with the vendor's record at it. */
async function lookAt(
  configuration: Configuration,
  name: string,
  exit: ComparedExit | undefined,
  number: number,
): Promise<ComparedExit | undefined> {
  if (!exit) return undefined;
  const { hv, dom, demo } = await open(configuration, name);
  try {
    const { inner, vcpus: [vcpu] } = subjectOf(dom);
    let seen = 0, raw: Record<string, bigint> | null = null, instruction = "";
    dom.trace("any", {}, (stop) => {
      if (seen++ !== number) return;
      raw = { ...stop.raw };
      instruction = lineOf(vcpu);
      inner.pause();
    });
    const limit = { instructions: exit.count + 1 };
    await runUntil(dom, demo ? { ...limit, keys: DEMO_KEYS } : limit);
    return { ...exit, instruction, raw };
  } finally {
    await hv.close();
  }
}

const sameExit = (a: ComparedExit | undefined, b: ComparedExit | undefined): boolean =>
  a?.kind === b?.kind && a?.count === b?.count && a?.text === b?.text;

/**
 * Runs a guest on two configurations at the same time, each on a host of its own, and compares: exits by kind, the
 * first exit that differs with both vendors' records there, the console's text, and the state that
 * the guest can see.
 *
 * @throws {Error} naming the configuration that cannot be made
 *
 * @example
 * ```ts
 * import { compare } from "xvm";
 *
 * const result = await compare({ name: "one" }, { name: "another" }, { until: 50_000 });
 * if (!result.equal || result.first) throw new Error("unexpected");
 * ```
 */
export async function compare(
  a: Configuration,
  b: Configuration,
  options: CompareOptions = {},
): Promise<Comparison> {
  const names = namesOf(a, b);
  const { runs, pairs: { same, first } } = await recordBoth([a, b], names, options);
  const state = runs[0].state.differences(runs[1].state);
  if (!first) return new Comparison(runs, undefined, same, state);
  const looked = [
    await lookAt(a, names[0], first[0], same),
    await lookAt(b, names[1], first[1], same),
  ] as const;
  return new Comparison(runs, looked, same, state);
}
