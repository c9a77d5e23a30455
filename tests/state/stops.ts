/**
 * Kinds of stop, each with how a domain is brought to one: exits by the rows of exit_kinds.ts, what else
 * one can break on, and the ways in which a host lets a domain stand.
 *
 * @module
 */
import { exitRows } from "../../src/hvm/exit_kinds.ts";
import { subjectOf } from "../../src/debug/domain.ts";
import type { StopOf } from "../../src/debug/events/verbs.ts";
import {
  everywhere,
  filterFields,
  isExit,
  isPlatform,
  type Kind,
  kinds,
} from "../../src/debug/kinds.ts";
import { isFiltered } from "../../src/hvm/fields.ts";
import { advance } from "../../src/debug/lockstep.ts";
import type { Stop } from "../../src/debug/events/stop.ts";
import { GuestStopped } from "../../src/debug/waits.ts";
import { settle } from "../../src/debug/testing/hosts.ts";
import type { Random } from "../../src/debug/testing/states.ts";
import { HVM_BLOCK, HvmEngine } from "../../src/xen/hvm.ts";
import type { StepOptions } from "../../src/debug/events/steps.ts";
import type { Vcpu } from "../../src/xen/vcpu.ts";
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
  /** Something is done to it now that another host would not come by. */
  apart(): void;
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

/** Whose accesses a device's are: a domain's first. Of several vCPUs, no device says whose. */
const PROCESSOR = 0;

interface Asked {
  readonly address: number;
  /** What is written; -1: it is read. */
  readonly value: number;
  answer(): void;
}

/** A device in a script that does what the platform's own does, when it is told to. */
export class SlowDevice {
  #asked: Asked[] = [];
  readonly #gone: () => void;

  constructor({ dom: { ioreq }, inner }: Running, range: Range) {
    const platform = inner.platform!;
    const later = <T>(address: number, value: number, act: () => T) =>
      new Promise<T>((resolve) =>
        this.#asked.push({ address, value, answer: () => resolve(act()) })
      );
    this.#gone = ioreq.serve(range, {
      read: (address, size) =>
        later(
          address,
          -1,
          () =>
            "port" in range
              ? platform.ioRead(address, size)
              : platform.mmioRead(address, size, PROCESSOR),
        ),
      write: (address, value, size) =>
        later(
          address,
          value,
          () =>
            "port" in range
              ? platform.ioWrite(address, size, value)
              : platform.mmioWrite(address, size, value, PROCESSOR),
        ),
    });
  }
  /** Answers all that it was asked, in an order that is the same whoever asked first. */
  async answer(): Promise<void> {
    if (this.#asked.length === 0) throw new Error("the device has not been asked");
    const asked = this.#asked.sort((a, b) => a.address - b.address || a.value - b.value);
    this.#asked = [];
    for (const each of asked) each.answer();
    await settle(1);
  }
  /** A load: it will be asked anew. */
  forget(): void {
    this.#asked = [];
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

/** The number of one of its vCPUs. */
const anyVcpu = ({ dom, random }: Ground): number =>
  dom.vcpus.length > 1 ? random.below(dom.vcpus.length) : 0;

/** A few bytes of the stack, by their linear or their physical address. */
function watchOf(at: Ground): Record<string, unknown> | undefined {
  const { dom, random } = at, n = anyVcpu(at);
  const { regs, bits, pageTables } = dom.vcpus[n], { file } = subjectOf(dom).vcpus[n];
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
  // It has none of them.
  if (isPlatform(kind) && !inner.xen) return undefined;
  const filter = kind in FILTERS ? FILTERS[kind]!(at) : filterOf(kind, random);
  if (!filter) return undefined;
  if (dom.vcpus.length > 1 && random.below(2)) filter.vcpu = anyVcpu(at);
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
  const { machine } = host, end = machine.count + reach;
  let times = random.below(4);
  inner.resume();
  while (machine.count < end && !inner.ended) {
    if (inner.state.kind === "blocked" && times-- === 0) {
      if (random.below(2)) return "not paused";
      inner.pause();
      return "paused";
    }
    if (!host.runOnce(end - machine.count) && !host.idle()) break;
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

const APICS: Range = { mmio: [0xfee0_0000, 0xfee0_0fff] };
const DEVICES: readonly Range[] = [
  { port: [0x20, 0xa1] },
  { port: [0x3f8, 0x3ff] },
  { mmio: [0xfec0_0000, 0xfec0_0fff] },
  APICS,
  { mmio: [0xd000_0000, 0xd000_0fff] },
];
/** To an access that a device outside has been asked about, or has just answered. */
const device: Bring = async (at) => {
  const { dom, inner, random, reach } = at, several = inner.vcpus.length > 1;
  // Whose local APIC is meant, the device would have to know.
  const slow = at.slow(random.pick(several ? DEVICES.filter((range) => range !== APICS) : DEVICES));
  let more = random.below(6);
  for (const end = inner.count + reach; inner.count < end && !inner.ended;) {
    const { count } = inner;
    // Others go on while one waits.
    advance(dom, several ? 1 + random.below(200) : end - count);
    if (!waits(at)) {
      if (inner.count === count) break;
      continue;
    }
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

const steps: Bring = (at) => step(at, {});
/** One goes on where the others stand. */
const alone: Bring = (at) => {
  at.apart();
  return step(at, { others: "stand" });
};
async function step(at: Ground, options: StepOptions): Promise<string | undefined> {
  const { dom, random } = at, n = anyVcpu(at);
  try {
    await dom.vcpus[n].step(1 + random.below(30), options);
    return dom.vcpus.length > 1 ? `vCPU ${n}` : "stopped";
  } catch (error) {
    if (error instanceof GuestStopped) return undefined;
    throw error;
  }
}

/** To where one of its vCPUs is in some way, by steps that jump over few such places. */
const until = (is: (vcpu: Vcpu) => boolean): Bring => ({ dom, inner, random, reach }) => {
  let times = random.below(3);
  for (const end = inner.count + reach; inner.count < end && !inner.ended;) {
    if (advance(dom, 1 + random.below(40)) === 0) break;
    const vcpu = inner.vcpus.find(is);
    if (vcpu && times-- === 0) return `vCPU ${vcpu.id}`;
  }
  return undefined;
};

/** To where the guest has an interrupt or an NMI to come, and cannot take it yet. */
const windowAsked: Bring = (at) => {
  const { host, dom, inner, random } = at, { engine, id } = inner.vcpus[anyVcpu(at)];
  if (!(engine instanceof HvmEngine)) return undefined;
  for (let n = 0; n < 60 && !inner.ended; n++) {
    advance(dom, 1 + random.below(300));
    const { window } = host.blocks.save()[`domain ${dom.id} vcpu ${id} ${HVM_BLOCK}`].record as {
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

const SEVERAL: Readonly<Record<string, Bring>> = {
  "one steps, others stand": alone,
  "sent, not delivered": until(({ running, port }) =>
    !running && (port!.interruptPending() || port!.signals.nmi > 0 || port!.signals.init ||
      port!.signals.startup >= 0)
  ),
  "waiting for a start-up": until(({ online }) => !online),
  "one waits, others run": until(({ blocked }) => blocked),
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
    ...inner.vcpus.length > 1 ? SEVERAL : {},
  };
}

/** The addresses of the next instructions of its vCPUs. */
export const here = ({ dom }: Running): bigint[] =>
  subjectOf(dom).vcpus.map(({ linearIp }) => linearIp);
