/**
 * Two configurations side by side, and the first instruction after which they differ.
 *
 * @module
 */
import { type GuestDomain, subjectOf } from "./domain.ts";
import type { Subject } from "./subject.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { domainHash } from "./views/domain_hash.ts";
import { options as optionsOf, whole } from "./check.ts";
import { bold, grouped, hex, INSPECT, type InspectOptions } from "./values.ts";
import { lineOf } from "./views/code.ts";
import { registerLines } from "./views/visible.ts";
import { FrameHashes } from "../machine/frame_hashes.ts";

/** One of the two. */
export interface Side {
  /** What the difference calls it. */
  readonly name: string;
  /** Instructions so far. */
  readonly count: number;
  /** Executes `instructions`; how many they were: fewer if the guest ended. */
  run(instructions: number): number;
  /** Of all that both must agree on. */
  hash(): string;
  /** Its state, for `load`. */
  save(): unknown;
  /** Goes back to where `save` was called. */
  load(state: unknown): void;
  /** The state in lines, for the difference. */
  lines(): string[];
  /** The next instruction. */
  instruction(): string;
  /** Contents of memory that differ may be shown; page of guest memory, undefined past its end. */
  page?(gpa: number): Uint8Array | undefined;
}

/** What a lockstep run is told. */
export interface LockstepOptions {
  /** Most instructions; 1,000,000 if not given. */
  readonly instructions?: number;
  /** Instructions between two comparisons; 100,000 if not given. */
  readonly stride?: number;
}

/** @see LockstepOptions */
const LOCKSTEP_OPTIONS = optionsOf({
  instructions: whole(1, Number.MAX_SAFE_INTEGER),
  stride: whole(1, Number.MAX_SAFE_INTEGER),
});

/** Where two runs part. */
export class Difference {
  /** Instructions after which both were still the same. */
  readonly position: number;
  /** What the two sides are called. */
  readonly names: readonly [string, string];
  /** The instruction after which they are not. */
  readonly instruction: string;
  /** Lines of state that differ, of the one and of the other. */
  readonly lines: readonly (readonly [string, string])[];

  /** @ignore Made by {@linkcode lockstep}. */
  constructor(
    position: number,
    names: readonly [string, string],
    instruction: string,
    lines: readonly (readonly [string, string])[],
  ) {
    this.position = position;
    this.names = names;
    this.instruction = instruction;
    this.lines = lines;
  }
  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const [a, b] = this.names;
    return [
      bold(`${a} and ${b} differ after instruction ${grouped(this.position + 1)}`, options),
      `  ${this.instruction}`,
      ...this.lines.flatMap(([x, y]) => [`  ${a}: ${x}`, `  ${b}: ${y}`]),
    ].join("\n");
  }
}

/**
 * Runs both, compares by hash at each stride, and bisects to the first instruction after which they
 * differ.
 *
 * @returns the difference; undefined if there is none
 */
export function lockstep(a: Side, b: Side, options: LockstepOptions = {}): Difference | undefined {
  const { instructions = 1_000_000, stride = 100_000 } = LOCKSTEP_OPTIONS(options, "lockstep");
  if (a.hash() !== b.hash()) return difference(a, b, 0, "before the first");
  for (let done = 0; done < instructions;) {
    const saved = [a.save(), b.save()];
    const n = Math.min(stride, instructions - done);
    const [ran, also] = [a.run(n), b.run(n)];
    if (ran !== also || a.hash() !== b.hash()) {
      return bisect(a, b, saved, done, Math.max(ran, also));
    }
    done += ran;
    if (ran < n) return undefined;
  }
  return undefined;
}

function bisect(
  a: Side,
  b: Side,
  saved: readonly unknown[],
  done: number,
  span: number,
): Difference {
  const to = (n: number) => {
    a.load(saved[0]);
    b.load(saved[1]);
    return n === 0 || (a.run(n) === b.run(n) && a.hash() === b.hash());
  };
  // The same after `low`, not after `high`.
  let low = 0, high = span;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (to(middle)) low = middle;
    else high = middle;
  }
  to(low);
  const instruction = a.instruction();
  to(low + 1);
  return difference(a, b, done + low, instruction);
}

function difference(a: Side, b: Side, position: number, instruction: string): Difference {
  const [x, y] = [a.lines(), b.lines()];
  const lines: [string, string][] = [];
  for (let i = 0; i < Math.max(x.length, y.length); i++) {
    if (x[i] !== y[i]) lines.push([x[i] ?? "nothing", y[i] ?? "nothing"]);
  }
  lines.push(...memoryDifferences(a, b));
  return new Difference(position, [a.name, b.name], instruction, lines);
}

const MAX_PLACES = 8;

function memoryDifferences(a: Side, b: Side): [string, string][] {
  const places: [string, string][] = [];
  if (!a.page || !b.page) return places;
  for (let gpa = 0; places.length < MAX_PLACES; gpa += 4096) {
    const [x, y] = [a.page(gpa), b.page(gpa)];
    if (!x && !y) break;
    if (!x || !y) continue;
    for (let i = 0; i < 4096 && places.length < MAX_PLACES; i++) {
      if (x[i] !== y[i]) {
        places.push([`[${hex(gpa + i)}] ${hex(x[i], 2)}`, `[${hex(gpa + i)}] ${hex(y[i], 2)}`]);
      }
    }
  }
  return places;
}

/** Timers in a row that wake nobody, after which a guest is taken to wait for what never comes. */
const MAX_IDLE = 100_000;

/**
 * Runs a host with one domain for exactly so many instructions of all its vCPUs together, without its
 * driver.
 *
 * @returns how many they were: fewer if the guest ended, stopped, or waits for ever
 */
export function advance(dom: GuestDomain, instructions: number): number {
  const { host, inner: domain } = subjectOf(dom), { machine } = host;
  const from = machine.count, to = from + instructions;
  domain.resume();
  for (let idle = 0; machine.count < to && !domain.ended && idle < MAX_IDLE;) {
    if (host.runOnce(to - machine.count)) idle = 0;
    else if (domain.state.kind === "blocked" && host.idle()) idle++;
    else break;
  }
  if (!domain.ended) domain.pause();
  return machine.count - from;
}

/** A hypervisor's only domain as a side: compared by registers, guest memory and devices. */
export function sideOf(hv: Hypervisor, name?: string): Side {
  const [dom, more] = hv.domains;
  if (!dom || more) throw new Error("lockstep: a hypervisor with exactly one domain was expected");
  const subject = subjectOf(dom), [vcpu] = subject.vcpus;
  return {
    name: name ?? dom.name,
    get count() {
      return vcpu.position.count;
    },
    run: (n) => advance(dom, n),
    hash: () => domainHash(subject),
    save: () => hv.save(),
    load: (state) => hv.load(state as Uint8Array),
    lines: () => registerLines(vcpu.file),
    instruction: () => lineOf(vcpu),
    page: (gpa) => pageOf(subject, gpa),
  };
}

function pageOf({ inner: { memory }, host }: Subject, gpa: number): Uint8Array | undefined {
  if (gpa >= memory.size) return undefined;
  const machine = memory.machineAddress(gpa);
  if (machine < 0) return EMPTY;
  // Frames that are all zero need no look.
  const [low, high] = FrameHashes.of(host.machine).frame(machine / 4096);
  return low || high ? host.machine.ram.subarray(machine, machine + 4096) : EMPTY;
}

const EMPTY = new Uint8Array(4096);
