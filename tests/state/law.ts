/**
 * The law of saved states: save, run on, load, run on = run on. Tried at stops of kinds and at places
 * that a seed draws, on the host that was saved, on one that never ran there, and against one that was
 * never saved, stopped or looked at.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { GuestDigest } from "xvm";
import { advance } from "../../src/debug/lockstep.ts";
import { settle } from "../../src/debug/testing/hosts.ts";
import { Random } from "../../src/debug/testing/states.ts";
import { RecordError } from "../../src/machine/record.ts";
import { type Bring, type Ground, here, type Range, SlowDevice, stopsOf, waits } from "./stops.ts";
import type { Running, Subject } from "./subjects.ts";

/** What trials came to. */
export interface Tried {
  readonly trials: number;
  /** Those in which all was equal. */
  readonly equal: number;
  /** How many stops there were of each kind. */
  readonly kinds: Readonly<Record<string, number>>;
  /** What was not, in words. */
  readonly problems: readonly string[];
}

/** What there is at the end of a run. */
interface Look {
  /** What the guest can see, in lines by what they are about. */
  readonly visible: Readonly<Record<string, string>>;
  readonly hash: string;
  readonly state: Uint8Array;
}

/** Addresses that are remembered, for each vCPU. */
const SEEN = 8;
/** Differences of states that are told. */
const TOLD = 12;

/** One more host than the law speaks of: it shows what the run comes to when nobody saves. */
interface Sides {
  readonly saved: Running;
  readonly fresh: Running;
  readonly never: Running;
}

/** Instructions from 1 to `most`: as many of each order of magnitude. */
const distance = (random: Random, most: number): number =>
  1 + random.below(Math.ceil(most ** ((1 + random.below(100)) / 100)));

function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x0100_0193);
  return hash;
}

class Law {
  #sides: Sides | undefined;
  #slow: { readonly range: Range; readonly of: Map<Running, SlowDevice> } | undefined;
  /** What was done to the saved one is not done again: a device answered when it was told to, say. */
  #apart = false;
  readonly #seen: bigint[] = [];
  /** Kinds that are still to be tried before any is tried again. */
  #deck: [kind: string, bring: Bring][] = [];
  readonly #random: Random;
  readonly kinds: Record<string, number> = {};
  readonly problems: string[] = [];

  constructor(readonly subject: Subject, readonly gap: number, seed: number) {
    this.#random = new Random((hashOf(subject.name) ^ seed) >>> 0 || 1);
  }

  async #open(): Promise<Sides> {
    const [saved, fresh, never] = [
      await this.subject.open(),
      await this.subject.open(),
      await this.subject.open(),
    ];
    return this.#sides = { saved, fresh, never };
  }
  async close(): Promise<void> {
    for (const { hv } of Object.values(this.#sides ?? {})) await hv.close();
    this.#sides = undefined;
    this.#seen.length = 0;
  }

  /** One trial; true if all was equal. */
  async trial(): Promise<boolean> {
    for (;;) {
      this.#apart = false;
      const sides = this.#sides ?? await this.#open();
      await this.#moveOn(sides);
      const stop = !sides.saved.inner.ended && await this.#stop(sides.saved);
      if (stop) return await this.#judge(sides, stop);
      await this.close();
    }
  }

  /** From the last trial to somewhere about the next, with a key on the way. */
  async #moveOn({ saved, never }: Sides): Promise<void> {
    const { keys } = this.subject, random = this.#random;
    if (keys && random.below(2)) {
      const key = random.pick([...keys]);
      for (const { dom } of [saved, never]) dom.console.write(key);
    }
    // Drivers that a key or a load has woken find nothing to do.
    await settle();
    for (const part of [this.gap, 3000]) {
      advance(saved.dom, 1 + random.below(2 * part));
      this.#seen.push(...here(saved));
    }
    this.#seen.splice(0, this.#seen.length - SEEN * saved.inner.vcpus.length);
  }

  /** Brings it to a stop of some kind that it comes to; which, in words. */
  async #stop(side: Running): Promise<string | undefined> {
    const random = this.#random, { reach } = this.subject, { inner } = side;
    const all = Object.entries(stopsOf(side));
    while (!inner.ended) {
      // Each has its turn, in an order of its own each time.
      if (this.#deck.length === 0) this.#deck = random.shuffled(all);
      const [kind, bring] = this.#deck.pop()!;
      const ground: Ground = {
        ...side,
        random,
        reach,
        seen: this.#seen,
        slow: (range) => this.#serve(side, range),
        apart: () => void (this.#apart = true),
      };
      const how = await bring(ground);
      if (how && !inner.ended) {
        this.kinds[kind] = (this.kinds[kind] ?? 0) + 1;
        return `${kind}, ${how}`;
      }
      await this.#unserve();
    }
    return undefined;
  }

  #serve(side: Running, range: Range): SlowDevice {
    const { of } = this.#slow ??= { range, of: new Map() };
    const device = new SlowDevice(side, range);
    of.set(side, device);
    this.#apart = true;
    return device;
  }
  /** Nothing is owed when they go. */
  async #unserve(): Promise<void> {
    for (const [side, device] of this.#slow?.of ?? []) {
      if (waits(side)) await device.answer();
      device.end();
    }
    this.#slow = undefined;
  }

  async #judge(sides: Sides, stop: string): Promise<boolean> {
    const { saved, fresh, never } = sides, { inner } = saved;
    const from = inner.count, length = distance(this.#random, this.subject.reach);
    const found: string[] = [];
    const tell = (what: string, words: readonly string[]) => {
      if (words.length) found.push(`${what}: ${words.join("\n    ")}`);
    };
    const state = saved.hv.save();
    tell("saved a second time", differences(saved, state, saved.hv.save()));
    const first = await this.#runOn(saved, length), { ended } = inner;
    const again = async (what: string, side: Running) => {
      side.hv.load(state);
      this.#slow?.of.get(side)?.forget();
      tell(`loaded into ${what}`, differences(saved, state, side.hv.save()));
      if (this.#slow && !this.#slow.of.has(side)) this.#serve(side, this.#slow.range);
      const look = await this.#runOn(side, length);
      tell(`run on in ${what}`, [
        ...unlike(first, look),
        ...first.hash === look.hash ? [] : [`hash: ${first.hash} | ${look.hash}`],
        ...differences(saved, first.state, look.state),
      ]);
    };
    await again("a fresh host", fresh);
    if (ended) tell("loaded where the guest has ended", refusal(saved, state));
    else await again("the same host", saved);
    if (!this.#apart) {
      advance(never.dom, from - never.inner.count);
      tell("run on without a save", unlike(first, await this.#runOn(never, length)));
    }
    await this.#unserve();
    if (found.length) {
      const where = `${this.subject.name}: ${stop}, at ${from} + ${length}`;
      this.problems.push([where, ...found].join("\n  "));
    }
    if (ended || found.length) await this.close();
    else if (this.#apart) never.hv.load(saved.hv.save());
    return found.length === 0;
  }

  /** So many instructions from where it stands, and what there is then. */
  async #runOn(side: Running, length: number): Promise<Look> {
    const { hv, dom, inner } = side, end = inner.count + length, { total } = inner.output;
    const device = this.#slow?.of.get(side);
    for (;;) {
      advance(dom, end - inner.count);
      if (inner.count >= end || !waits(side) || !device) break;
      await device.answer();
    }
    const { console: _, ...sections } = GuestDigest.of(dom).sections;
    return {
      visible: {
        ...sections,
        place: `${inner.count} instructions, ${inner.now} ns, ${dom.state}`,
        text: JSON.stringify(new TextDecoder().decode(inner.output.since(total))),
      },
      hash: hv.stateHash(),
      state: hv.save(),
    };
  }
}

function unlike({ visible: a }: Look, { visible: b }: Look): string[] {
  return Object.keys(a).filter((name) => a[name] !== b[name])
    .map((name) => `${name}: ${a[name]} | ${b[name]}`);
}

/** What differs between two states, in words; nothing if they are the same bytes. */
export function differences({ hv }: Running, a: Uint8Array, b: Uint8Array): string[] {
  if (Buffer.compare(a, b) === 0) return [];
  const { differences: all } = hv.diff(a, b), more = all.length - TOLD;
  if (all.length === 0) return ["the bytes"];
  const words = all.slice(0, TOLD).map(({ block, path, values }) =>
    `${block} ${path}: ${values.join(" | ")}`
  );
  return more > 0 ? [...words, `and ${more} more`] : words;
}

/** A guest that has ended cannot be brought back: nothing, if the load says so. */
function refusal({ hv }: Running, state: Uint8Array): string[] {
  try {
    hv.load(state);
    return ["it was taken"];
  } catch (error) {
    return error instanceof RecordError && /has ended/.test(error.message) ? [] : [`${error}`];
  }
}

/** Tries the law on a subject. */
export async function tryLaw(subject: Subject, trials: number, seed: number): Promise<Tried> {
  const law = new Law(subject, Math.ceil(subject.length / Math.max(trials, 1)), seed);
  let equal = 0;
  try {
    for (let n = 0; n < trials; n++) if (await law.trial()) equal++;
  } finally {
    await law.close();
  }
  return { trials, equal, kinds: law.kinds, problems: law.problems };
}
