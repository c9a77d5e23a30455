/**
 * Seeded programs: families of hypercalls, each program one domain.
 *
 * @module
 */
import {
  deliver,
  event,
  mapShared,
  newEvents,
  startDelivery,
  startFifo,
} from "./families/events.ts";
import { grant, newGrants, startGrants } from "./families/grants.ts";
import { hvm, hypercallMsr, leaves } from "./families/hvm.ts";
import { memory, startMemory } from "./families/memory.ts";
import { multicall } from "./families/multicall.ts";
import { initialise, keepSecondUp, setCallback, ticks, vcpuMove } from "./families/vcpus.ts";
import {
  consoleIo,
  physdev,
  privileged,
  unknown,
  unknownVersion,
  version,
} from "./families/version.ts";
import type { Width } from "./guest.ts";
import { type Program, Writer } from "./writer.ts";

/** What makes a family's program: a beginning, then moves until the calls are enough. */
interface Family {
  /** How long its programs are, beside those of the others. */
  readonly share?: number;
  start?(w: Writer): void;
  move(w: Writer): void;
}

const FAMILIES: Readonly<Record<string, () => Family>> = {
  version: () => ({
    share: 0.8,
    move: (w) => w.random.pick([version, version, version, unknownVersion])(w),
  }),
  others: () => ({
    share: 1.2,
    move: (w) =>
      w.random.pick([
        unknown,
        unknown,
        privileged,
        consoleIo,
        physdev,
        physdev,
        physdev,
        hypercallMsr,
      ])(w),
    start: leaves,
  }),
  events: () => {
    const e = newEvents();
    return { share: 2, start: mapShared, move: (w) => event(w, e) };
  },
  fifo: () => {
    const e = newEvents();
    return {
      share: 2,
      start(w) {
        mapShared(w);
        startFifo(w, e);
      },
      move: (w) => event(w, e),
    };
  },
  grants1: () => grants(1),
  grants2: () => grants(2),
  multicall: () => ({ share: 0.4, move: multicall }),
  memory: () => ({ share: 2, start: startMemory, move: memory }),
  hvm: () => ({ share: 1.5, start: mapShared, move: hvm }),
  vcpus: () => ({
    share: 3,
    start(w) {
      mapShared(w);
      keepSecondUp(w);
    },
    move: vcpuMove,
  }),
  initialise: () => ({ share: 0.15, move: initialise }),
  ticks: () => ({
    share: 0.4,
    start(w) {
      mapShared(w);
      setCallback(w);
    },
    move: ticks,
  }),
  delivery: () => {
    const e = newEvents(true);
    return { share: 2, start: startDelivery, move: (w) => deliver(w, e) };
  },
};

function grants(version: 1 | 2): Family {
  const g = newGrants(version);
  return { share: 2, start: (w) => startGrants(w, g), move: (w) => grant(w, g) };
}

/** Names of the families. */
export const FAMILY_NAMES: readonly string[] = Object.keys(FAMILIES);

/** The program of a family, a width and a seed: `calls` hypercalls and more, times the family's share. */
export function generate(family: string, width: Width, seed: number, calls: number): Program {
  const index = FAMILY_NAMES.indexOf(family);
  if (index < 0) throw new RangeError(`no family ${family}; expected ${FAMILY_NAMES.join(", ")}`);
  const w = new Writer(`${family}-${seed}-${width}`, width, seed * 64 + index * 2 + width / 64);
  const { share = 1, start, move } = FAMILIES[family](), wanted = calls * share;
  start?.(w);
  while (w.calls < wanted) move(w);
  return w.finish();
}
