/**
 * Kinds of stop, each with how a domain is brought to one: exits by the rows of exit_kinds.ts, what else
 * one can break on, and the ways in which a host lets a domain stand.
 *
 * @module
 */
import { exitRows } from "../../src/hvm/exit_kinds.ts";
import { subjectOf } from "../../src/debug/domain.ts";
import type { StopOf } from "../../src/debug/events/verbs.ts";
import { everywhere, filterFields, isExit, type Kind, kinds } from "../../src/debug/kinds.ts";
import { isFiltered } from "../../src/debug/events/filters.ts";
import { advance } from "../../src/debug/lockstep.ts";
import type { Stop } from "../../src/debug/events/stop.ts";
import { GuestStopped } from "../../src/debug/waits.ts";
import { settle } from "../../src/debug/testing/hosts.ts";
import type { Random } from "../../src/debug/testing/states.ts";
import { HVM_BLOCK, HvmEngine } from "../../src/xen/hvm.ts";
import type { Running } from "./subjects.ts";

/** A domain that is to be brought to a stop. */
export interface Ground extends Running {
  readonly random: Random;
  /** Instructions within which the stop has to come. */
  readonly reach: number;
  /** Addresses of instructions that it has come by. */
  readonly seen: readonly bigint[];
  /** Takes devices of the platform's into a script that answers when it is told to. */
  slow(range: Range): SlowDevice;
}

/** Brings a domain to a stop of a kind: what was done, in words; undefined if it did not come. */
export type Bring = (at: Ground) => string | undefined | Promise<string | undefined>;

/** Where a device answers. */
export type Range = { readonly port: readonly [number, number] } | {
  readonly mmio: readonly [number, number];
};

/** It waits for the answer of a device outside. */
export const waits = ({ inner }: Running): boolean =>
  !inner.ended && inner.vcpus.some(({ engine }) => engine.waiting);

/** Whose accesses a device's are: a domain's first. */
const PROCESSOR = 0;

/** A device in a script that does what the platform's own does, when it is told to. */
export class SlowDevice {
  #answer: (() => void) | undefined;
  readonly #gone: () => void;

  constructor({ dom: { ioreq }, inner }: Running, range: Range) {
    const platform = inner.platform!;
    const later = <T>(act: () => T) =>
      new Promise<T>((resolve) => this.#answer = () => resolve(act()));
    this.#gone = ioreq.serve(range, {
      read: (address, size) =>
        later(() =>
          "port" in range
            ? platform.ioRead(address, size)
            : platform.mmioRead(address, size, PROCESSOR)
        ),
      write: (address, value, size) =>
        later(() =>
          "port" in range
            ? platform.ioWrite(address, size, value)
            : platform.mmioWrite(address, size, value, PROCESSOR)
        ),
    });
  }
  /** Answers what it was asked last. */
  async answer(): Promise<void> {
    if (!this.#answer) throw new Error("the device has not been asked");
    this.#answer();
    this.#answer = undefined;
    await settle(1);
  }
  end(): void {
    this.#gone();
  }
}

/** A filter of what a kind's events say of themselves, or none. */
function filterOf(kind: Kind, random: Random): Record<string, unknown> {
  const filter: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(filterFields(kind))) {
    if (!isFiltered(field) || random.below(4)) continue;
    if (field.is === "flag") filter[key] = random.below(2) === 0;
    else if (field.is === "choice") filter[key] = random.pick(field.of!);
  }
  return filter;
}

/** A few bytes of the stack, by their linear or their physical address. */
function watchOf({ dom, random }: Ground): Record<string, unknown> | undefined {
  const { regs, bits, pageTables } = dom.vcpus[0], { file } = subjectOf(dom).vcpus[0];
  const top = bits === 64
    ? regs.rsp
    : BigInt.asUintN(32, file.segment("ss").base + BigInt.asUintN(32, regs.rsp));
  const linear = top - BigInt(random.below(64)) + 8n;
  if (linear < 0n) return undefined;
  const physical = random.below(3) === 0 ? pageTables.walk(linear).physical : undefined;
  const read = random.below(2) === 0;
  return {
    address: physical ?? linear,
    physical: physical !== undefined,
    length: random.pick([1, 2, 4, 8, 64]),
    read,
    write: !read || random.below(2) === 0,
  };
}

const FILTERS: Partial<Record<Kind, (at: Ground) => Record<string, unknown> | undefined>> = {
  execute: ({ random, seen }) => seen.length ? { address: random.pick(seen) } : undefined,
  watch: watchOf,
  any: () => ({ all: true }),
};

/** To an event that one can break on: it stops there, or somebody pauses it in the midst of it. */
const event = (kind: Kind): Bring => (at) => {
  const { dom, inner, random, reach } = at;
  const filter = kind in FILTERS ? FILTERS[kind]!(at) : filterOf(kind, random);
  if (!filter) return undefined;
  const hits = 1 + random.below(random.pick([1, 5, 50])), pauses = random.below(3) === 0;
  let paused = false;
  const pause = () => {
    paused = true;
    inner.pause();
  };
  const add = (filter: object) =>
    pauses
      ? dom.trace(kind, filter, { hits, once: true, action: pause })
      : dom.break(kind, filter as never, { hits });
  let breakpoint;
  try {
    breakpoint = add(filter);
  } catch (error) {
    // No event is like that.
    if (!(error instanceof RangeError)) throw error;
    breakpoint = add({});
  }
  advance(dom, reach);
  breakpoint.delete();
  if (pauses) return paused ? "paused within" : undefined;
  const { stop } = dom;
  return stop && (random.below(3) === 0 && answered(stop) || "stopped");
};

/** Answers an exit as the hypervisor would handle it; undefined if that is not an answer. */
function answered(stop: Stop): string | undefined {
  if (!isExit(stop.kind)) return undefined;
  if (exitRows[stop.kind].handled === "skip") {
    stop.skip();
    return "passed over";
  }
  if (stop.kind === "cpuid") {
    stop.reply((stop as StopOf<"cpuid">).result);
    return "answered";
  }
}

/** Runs until it waits for an interrupt, for some time. */
const halted: Bring = ({ host, inner, random, reach }) => {
  const { cpu } = host.machine, end = cpu.count + reach;
  let times = random.below(4);
  inner.resume();
  while (cpu.count < end && !inner.ended) {
    if (inner.state.kind === "blocked" && times-- === 0) {
      if (random.below(2)) return "not paused";
      inner.pause();
      return "paused";
    }
    if (!host.runOnce(end - cpu.count) && !host.idle()) break;
  }
  inner.pause();
  return undefined;
};

/** Runs until the host wants its thread, wherever it asks for that. */
const slice: Bring = ({ host, inner, random, reach }) => {
  const { attention } = host;
  let left = 1 + random.below(random.pick([3, 300]));
  host.attention = { due: () => --left <= 0, begin() {}, end() {} };
  try {
    inner.resume();
    host.runOnce(reach);
  } finally {
    host.attention = attention;
    inner.pause();
  }
  return left <= 0 ? "paused" : undefined;
};

/** To the moment at which a device has something to do, or just beside it. */
const deadline: Bring = ({ dom, inner, random, reach }) => {
  const left = inner.deadline - inner.now;
  if (!(left <= 10 * reach)) return undefined;
  advance(dom, Math.max(1, left - 2 + random.below(5)));
  return "paused";
};

const DEVICES: readonly Range[] = [
  { port: [0x20, 0xa1] },
  { port: [0x3f8, 0x3ff] },
  { mmio: [0xfec0_0000, 0xfec0_0fff] },
  { mmio: [0xfee0_0000, 0xfee0_0fff] },
  { mmio: [0xd000_0000, 0xd000_0fff] },
];
/** To an access that a device outside has been asked about, or has just answered. */
const device: Bring = async (at) => {
  const { dom, inner, random, reach } = at;
  const slow = at.slow(random.pick(DEVICES));
  let more = random.below(6);
  for (const end = inner.count + reach; inner.count < end && !inner.ended;) {
    advance(dom, end - inner.count);
    if (!waits(at)) break;
    if (more-- > 0) {
      await slow.answer();
      continue;
    }
    if (random.below(2)) return "asked";
    await slow.answer();
    return "answered";
  }
  return undefined;
};

const steps: Bring = async ({ dom, random }) => {
  try {
    await dom.vcpus[0].step(1 + random.below(30));
    return "stopped";
  } catch (error) {
    if (error instanceof GuestStopped) return undefined;
    throw error;
  }
};

/** To where the guest has an interrupt or an NMI to come, and cannot take it yet. */
const windowAsked: Bring = ({ host, dom, inner, random }) => {
  const { engine } = inner.vcpus[0];
  if (!(engine instanceof HvmEngine)) return undefined;
  for (let n = 0; n < 60 && !inner.ended; n++) {
    advance(dom, 1 + random.below(300));
    const { window } = host.blocks.save()[`domain ${dom.id} vcpu 0 ${HVM_BLOCK}`].record as {
      window: boolean;
    };
    if (window || engine.nmiPending) return "paused";
  }
  return undefined;
};

const EVERYWHERE: Readonly<Record<string, Bring>> = {
  "so many instructions": ({ dom, random, reach }) => {
    advance(dom, 1 + random.below(reach));
    return "paused";
  },
  "so many steps": steps,
  "waiting for an interrupt": halted,
  "end of a slice": slice,
  "a deadline": deadline,
};
const VIRTUAL: Readonly<Record<string, Bring>> = {
  "a device's answer": device,
  "a window asked for": windowAsked,
};

/** The kinds of stop that a domain can have, by their names. */
export function stopsOf({ inner }: Running): Readonly<Record<string, Bring>> {
  const { engine } = inner.vcpus[0], virtual = engine instanceof HvmEngine;
  const has = (kind: Kind) => {
    if (!isExit(kind)) return virtual || everywhere.includes(kind);
    if (!virtual || !engine.ops.exitKinds.includes(kind)) return false;
    return exitRows[kind].paging !== "shadow" || engine.shadow !== undefined;
  };
  return {
    ...Object.fromEntries(kinds.filter(has).map((kind) => [kind, event(kind)])),
    ...EVERYWHERE,
    ...virtual ? VIRTUAL : {},
  };
}

/** The address of the next instruction. */
export const here = ({ dom }: Running): bigint => subjectOf(dom).vcpus[0].linearIp;
