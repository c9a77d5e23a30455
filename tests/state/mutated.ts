/**
 * Saved states whose contents were changed and that are sealed again: each is refused by name with
 * nothing changed, or it is a state like any other.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { advance } from "../../src/debug/lockstep.ts";
import { type Configuration, hostOf } from "../../src/debug/testing/hosts.ts";
import { everyExit } from "../../src/debug/testing/every_exit.ts";
import { Random, repacked, signature, standing } from "../../src/debug/testing/states.ts";
import { encodePlain, type Plain, RecordError } from "../../src/machine/record.ts";
import { seal, type StateContents, unpackState } from "../../src/xen/state_file.ts";
import { differences } from "./law.ts";
import { type Running, running } from "./subjects.ts";

/** What mutations came to. */
export interface Mutated {
  readonly mutations: number;
  readonly refused: number;
  /** They are states: they were taken, and ran. */
  readonly taken: number;
  /** What was neither, in words. */
  readonly problems: readonly string[];
}

/** A state with something changed, and what that was. */
interface Mutation {
  readonly where: string;
  readonly bytes: Uint8Array;
  /** A refusal says one of these: the name of the block, without whose it is. */
  readonly words: readonly string[];
}

type Key = string | number;
type Holder = Record<Key, unknown>;

/** Every place in a record, as the keys that lead there. */
function places(value: Plain, path: Key[] = []): Key[][] {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return [path];
  const inside = Array.isArray(value)
    ? value.slice(0, 40).map((v, i) => [i, v] as const)
    : Object.entries(value);
  return [path, ...inside.flatMap(([key, v]) => places(v, [...path, key]))];
}

/** What may stand where something else was expected. */
const OTHERS: readonly unknown[] = [
  null,
  true,
  false,
  0,
  1,
  -1,
  7,
  0.5,
  1e300,
  -1e300,
  Infinity,
  "",
  "x",
  5n,
  -5n,
  1n << 70n,
  [],
  {},
  new Uint8Array(3),
  [[[]]],
  { kind: "cpuid" },
];

/** Something else in place of what stands there. */
function changed(value: unknown, random: Random): unknown {
  if (typeof value === "number" && random.below(2)) {
    return value + random.pick([1, -1, 256, 2 ** 31, 0.5]);
  }
  if (typeof value === "bigint" && random.below(2)) return value ^ 1n << BigInt(random.below(64));
  if (typeof value === "boolean" && random.below(2)) return !value;
  if (value instanceof Uint8Array && value.length && random.below(3)) {
    const bytes = value.slice(0, random.below(4) ? value.length : random.below(value.length));
    if (bytes.length) bytes[random.below(bytes.length)] ^= 1 << random.below(8);
    return bytes;
  }
  if (Array.isArray(value) && random.below(2)) {
    return random.below(2) ? value.slice(1) : [...value, 0];
  }
  return random.pick(OTHERS);
}

/** A place of the record has another value, another name, another's value, or is not there. */
function inRecord({ record, frames, data }: StateContents, all: Key[][], random: Random): Mutation {
  const copy = structuredClone(record) as Holder, path = random.pick(all), key = path.at(-1)!;
  let holder = copy;
  for (const k of path.slice(0, -1)) holder = holder[k] as Holder;
  const words = [String(path[0])], how = random.below(8);
  if (how === 0 && !Array.isArray(holder)) delete holder[key];
  else if (how === 1 && !Array.isArray(holder)) holder[`${key}x`] = holder[key];
  else if (how === 2) {
    const other = random.pick(Object.keys(holder));
    [holder[key], holder[other]] = [holder[other], holder[key]];
    if (path.length === 1) words.push(other);
  } else holder[key] = changed(holder[key], random);
  const bytes = repacked(copy as Plain, frames, data);
  return { where: path.join("."), bytes, words: words.map((word) => word.split(" ").at(-1)!) };
}

/** A bit of the bytes is another: of the record mostly, or of memory. */
function inBytes(state: Uint8Array, random: Random): Mutation {
  const length = new DataView(state.buffer).getUint32(12, true), bytes = state.slice();
  const at = 24 + random.below(random.below(4) ? length : state.length - 24);
  bytes[at] ^= 1 << random.below(8);
  return { where: `byte ${at}`, bytes: seal(bytes), words: [""] };
}

/** Instructions that a state runs for. */
const RUN = 3000;

/** Loads states with changes into a host that stands in the midst of things. */
export async function mutateStates(
  c: Configuration,
  mutations: number,
  seed: number,
): Promise<Mutated> {
  const random = new Random(seed >>> 0 || 1), problems: string[] = [];
  const open = async () => {
    const host = await standing(c);
    for (const b of host.dom.breakpoints) b.delete();
    return [running(host), running(await hostOf(c, everyExit(c.cpu)))] as const;
  };
  let [host, fresh] = await open(), refused = 0, taken = 0;
  const close = () => Promise.all([host.hv.close(), fresh.hv.close()]);
  const state = host.hv.save(), contents = unpackState(state);
  const all = places(contents.record).filter((path) => path.length > 0);
  host.hv.load(state);
  const before = signature(host);
  for (let n = 0; n < mutations; n++) {
    const { where, bytes, words } = n % 2
      ? inBytes(state, random)
      : inRecord(contents, all, random);
    const told = problems.length, tell = (what: string) => problems.push(`${where}: ${what}`);
    try {
      host.hv.load(bytes);
    } catch (error) {
      refused++;
      if (!(error instanceof RecordError)) tell(`${error}`);
      else if (!words.some((word) => error.message.includes(word))) {
        tell(`refused, but not by name: ${error.message}`);
      }
      if (signature(host) !== before) tell("refused, and something has changed");
      continue;
    }
    taken++;
    isState(host, fresh, bytes).forEach(tell);
    if (host.inner.ended || problems.length > told) {
      await close();
      [host, fresh] = await open();
    }
    host.hv.load(state);
    if (signature(host) !== before) tell("the next state is another one than before");
  }
  await close();
  return { mutations, refused, taken, problems };
}

/**
 * The host has the state that was given, and comes to the same as another one does. Of memory the parts
 * that hardware keeps for itself are put in order (clean bits, what is intercepted), once.
 */
function isState(host: Running, fresh: Running, given: Uint8Array): string[] {
  const { hv } = host, found: string[] = [];
  const compare = (what: string, a: Uint8Array, b: Uint8Array) => {
    const words = differences(host, a, b);
    if (words.length) found.push(`${what}: ${words.join("; ")}`);
  };
  const recordOf = (state: Uint8Array) => encodePlain(unpackState(state).record);
  const taken = hv.save();
  if (Buffer.compare(recordOf(given), recordOf(taken)) !== 0) {
    compare("it was taken as another", given, taken);
  }
  hv.load(taken);
  compare("loaded again it is another", taken, hv.save());
  fresh.hv.load(given);
  for (const { dom } of [host, fresh]) advance(dom, RUN);
  compare("it runs otherwise on another host", hv.save(), fresh.hv.save());
  return found;
}
