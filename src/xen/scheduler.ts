/**
 * Who runs next on a processor, in the manner of Xen's credit2: a vCPU that runs burns credit, the
 * slower the higher its domain's weight, and the one with most credit left runs. Everything is counted in
 * nanoseconds of machine time, which are instructions; so a schedule is a function of the guests, the
 * seed and what entered from outside, and repeats exactly.
 */
import {
  amount,
  finite,
  flag,
  list,
  orNull,
  record,
  type Shape,
  time,
  u32,
  whole,
} from "../machine/shape.ts";
import { GUEST_PROCESSORS } from "../abi/limits.ts";
import { refuse, type StateRegister } from "../machine/state_block.ts";

/** Xen's default weight, and the range it allows. */
const WEIGHT = { default: 256, min: 1, max: 65535 } as const;
/** Credit of a fresh domain, and what everybody gets when the best has none left (ns). */
const CREDIT = 10_500_000;
/** Longest and shortest turn while others wait (ns); the seed picks between them. */
const TURN = { longest: 1_000_000, shortest: 200_000 } as const;
/** Longest turn (ns) that can be asked for. */
export const LONGEST_TURN: number = TURN.longest;
/** Lengths of turns (ns) that the seed picks between, for vCPUs that run side by side in one guest. */
export interface Interleave {
  readonly min: number;
  readonly max: number;
}
/** If nobody says otherwise. */
export const INTERLEAVE: Interleave = { min: 2000, max: 10_000 };

/** Refuses what are no lengths. @throws {RangeError} */
function checkInterleave({ min, max }: Interleave): Interleave {
  if ([min, max].every((n) => Number.isInteger(n) && n >= 1) && min <= max && max <= TURN.longest) {
    return { min, max };
  }
  throw new RangeError(
    `interleave: instructions { min, max } with 1 <= min <= max <= ${TURN.longest} were expected, ` +
      `{ min: ${min}, max: ${max} } was given`,
  );
}

/** Most that can be asked for as a cap. */
const MOST_CAP = 100 * GUEST_PROCESSORS.max;
/** A cap is a share of each window (ns). */
const WINDOW = 10_000_000;

/** What is set for a domain, and what its cap counts: all its vCPUs together. */
export interface Allotment {
  /** Share of the processor beside others, 1 to 65535. */
  weight: number;
  /** Most that its vCPUs get together, in percent of one processor, as Xen's cap; 0: no cap. */
  cap: number;
  /** The window that `usedInWindow` counts. */
  window: number;
  usedInWindow: number;
}

export const ALLOTMENT_SHAPE: Shape = record({
  weight: whole(1, 65535),
  cap: whole(0, MOST_CAP),
  window: amount,
  usedInWindow: amount,
});

/** What the scheduler knows of a vCPU. */
export interface Share {
  credit: number;
  /** Number of its last turn: among equals the one runs that waited longest. */
  turn: number;
  /** Time on the processor (ns) that its credit has not paid for yet: that of its last turn. */
  owed: number;
  /** It has given its turn away: all others that can run come first, once. */
  yields: boolean;
}

export const SHARE_SHAPE: Shape = record({
  credit: finite,
  turn: amount,
  owed: amount,
  yields: flag,
});

/** What is scheduled: a vCPU. */
export interface Unit {
  readonly share: Share;
  readonly id: number;
  readonly domain: { readonly id: number; readonly allotment: Allotment };
}

/** Who has a processor, and until which machine time. */
export interface Turn<U extends Unit> {
  readonly vcpu: U;
  /** Infinity if it has the processor for itself. */
  readonly ends: number;
}

/** A turn as it is saved. */
interface SavedTurn {
  readonly domain: number;
  readonly vcpu: number;
  readonly ends: number;
}
const TURN_SHAPE = record({ domain: amount, vcpu: amount, ends: time });

/** Refuses what is no weight. @throws {RangeError} */
export function checkWeight(weight: number): number {
  if (Number.isInteger(weight) && weight >= WEIGHT.min && weight <= WEIGHT.max) return weight;
  throw new RangeError(
    `weight: a whole number from ${WEIGHT.min} to ${WEIGHT.max} was expected (${WEIGHT.default} if ` +
      `not given), ${weight} was given`,
  );
}

/** Refuses what is no cap of a domain with so many vCPUs. @throws {RangeError} */
export function checkCap(cap: number, vcpus: number): number {
  const most = 100 * vcpus;
  if (Number.isInteger(cap) && cap >= 0 && cap <= most) return cap;
  throw new RangeError(
    `cap: percent of a processor from 1 to ${most} was expected for ${vcpus} ` +
      `${vcpus === 1 ? "vCPU" : "vCPUs"}, or 0 for no cap; ${cap} was given`,
  );
}

/** Not the stream that frames and guests draw from: they see the same whoever runs beside them. */
const randomOf = (seed: number): number => Math.imul(seed ^ 0x5bd1e995, 0x9e3779b1) >>> 0 || 1;

interface SavedScheduler {
  readonly random: number;
  readonly interleave: Interleave;
  readonly turns: number;
  readonly processors: readonly (SavedTurn | null)[];
}
const LENGTH = whole(1, TURN.longest);
const SAVED = record({
  random: u32,
  interleave: record({ min: LENGTH, max: LENGTH }),
  turns: amount,
  processors: list(orNull(TURN_SHAPE)),
});

export class Scheduler {
  #random: number;
  #interleave: Interleave;
  #turns = 0;

  /** @param seed picks the lengths of turns, and who of equals begins */
  constructor(
    seed: number,
    interleave: Interleave,
    private readonly now: () => number,
  ) {
    this.#interleave = checkInterleave(interleave);
    this.#random = randomOf(seed);
  }

  /** How long turns are among the vCPUs of one guest, and legs. */
  get interleave(): Interleave {
    return this.#interleave;
  }
  /** From now on they are so long, as another seed picks, if one is given. @throws {RangeError} */
  setInterleave(interleave: Interleave, seed?: number): void {
    this.#interleave = checkInterleave(interleave);
    if (seed !== undefined) this.#random = randomOf(seed);
  }

  /** @param find the vCPU of a domain's id and a number, if there is one */
  register<U extends Unit>(
    blocks: StateRegister,
    processors: readonly { turn: Turn<U> | null }[],
    find: (domain: number, vcpu: number) => U | undefined,
  ): void {
    blocks.register<SavedScheduler>({
      name: "scheduler",
      version: 3,
      configuration: () => ({ processors: processors.length }),
      shape: SAVED,
      save: () => ({
        random: this.#random,
        interleave: { ...this.#interleave },
        turns: this.#turns,
        processors: processors.map(({ turn }) =>
          turn && { domain: turn.vcpu.domain.id, vcpu: turn.vcpu.id, ends: turn.ends }
        ),
      }),
      check: (saved) => {
        const { min, max } = saved.interleave;
        if (min > max) refuse(`scheduler: turns of ${min} to ${max}`);
        if (saved.processors.length !== processors.length) {
          refuse(`scheduler: ${saved.processors.length} turns, of ${processors.length} processors`);
        }
        for (const turn of saved.processors) {
          if (!turn || find(turn.domain, turn.vcpu)) continue;
          refuse(
            `scheduler: the turn is domain ${turn.domain}'s vCPU ${turn.vcpu}, which is not here`,
          );
        }
      },
      load: (saved) => {
        this.#random = saved.random;
        this.#interleave = saved.interleave;
        this.#turns = saved.turns;
        saved.processors.forEach((turn, n) => {
          const vcpu = turn && find(turn.domain, turn.vcpu);
          processors[n].turn = turn && vcpu ? { vcpu, ends: turn.ends } : null;
        });
      },
    });
  }

  #draw(below: number): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (this.#random = x >>> 0) % below;
  }

  /** What a fresh domain with so many vCPUs gets. */
  allot(vcpus: number, weight: number = WEIGHT.default, cap = 0): Allotment {
    return { weight: checkWeight(weight), cap: checkCap(cap, vcpus), window: 0, usedInWindow: 0 };
  }
  /** The share of a fresh vCPU. */
  join(): Share {
    // Equals begin in an order that the seed chooses.
    return { credit: CREDIT + this.#draw(1000), turn: 0, owed: 0, yields: false };
  }

  /** Nanoseconds that a domain's cap leaves it now; Infinity without a cap. */
  allowance(allotment: Allotment): number {
    if (allotment.cap === 0) return Infinity;
    this.#enterWindow(allotment, 0);
    return Math.floor(WINDOW * allotment.cap / 100) - allotment.usedInWindow;
  }

  /**
   * Counts in the window that there is now; of time up to now, what lies in it. Processors are not at the
   * same time: one that is behind counts in the window of those ahead.
   */
  #enterWindow(allotment: Allotment, time: number): void {
    const now = this.now(), window = Math.floor(now / WINDOW);
    if (window > allotment.window) {
      allotment.window = window;
      allotment.usedInWindow = Math.min(time, now - window * WINDOW);
    } else allotment.usedInWindow += time;
  }

  /** Machine time at which caps allow more. */
  get nextWindow(): number {
    return (Math.floor(this.now() / WINDOW) + 1) * WINDOW;
  }

  /**
   * Which of the vCPUs that can run has its turn, all of them within their domains' caps. When the best
   * of them has no credit left, everybody in `all` gets some. Of one guest's, the one that has waited
   * longest runs: how long each does is the interleaving's, and credit decides between guests.
   */
  choose<U extends Unit>(able: readonly U[], all: readonly U[]): U {
    for (const unit of all) this.settle(unit);
    const others = able.filter(({ share }) => !share.yields);
    const runnable = others.length > 0 ? others : able;
    for (const { share } of able) share.yields = false;
    let best = runnable[0];
    for (const unit of runnable) {
      const more = unit.share.credit - best.share.credit;
      if (more > 0 || (more === 0 && unit.share.turn < best.share.turn)) best = unit;
    }
    if (best.share.credit <= 0) {
      // As often as it takes the best to have some; whoever waited keeps no more than a fresh one has.
      const more = CREDIT * (Math.floor(-best.share.credit / CREDIT) + 1);
      for (const { share } of all) share.credit = Math.min(share.credit + more, CREDIT);
    }
    const next = runnable.reduce(
      (first, unit) =>
        unit.domain === best.domain && unit.share.turn < first.share.turn ? unit : first,
      best,
    );
    // It pays with what its guest has.
    const { credit } = best.share;
    best.share.credit = next.share.credit;
    next.share.credit = credit;
    next.share.turn = ++this.#turns;
    return next;
  }

  /** Length of a turn (ns) of one of those that can run: among those of its guest it is short. */
  turnLength(runnable: readonly Unit[], { domain }: Unit): number {
    if (runnable.length === 1) return TURN.longest;
    if (runnable.filter((unit) => unit.domain === domain).length > 1) return this.leg();
    return TURN.shortest + this.#draw(TURN.longest - TURN.shortest);
  }
  /** How far (ns) a processor gets before another. */
  leg(): number {
    const { min, max } = this.#interleave;
    return min + this.#draw(max - min + 1);
  }

  /** It gives its turn away: of the others that can run one has the next. */
  yield({ share }: Unit): void {
    share.yields = true;
  }
  /** A vCPU was on its processor for `time` ns of a turn. */
  burn({ share, domain: { allotment } }: Unit, time: number, turn: Turn<Unit> | null): void {
    this.#enterWindow(allotment, time);
    if (turn && turn.ends < Infinity) share.owed += time;
  }
  /** A turn's time is paid for at once, at the weight there is: in how many parts it ran is nobody's. */
  settle({ share, domain: { allotment } }: Unit): void {
    share.credit -= share.owed * WEIGHT.default / allotment.weight;
    share.owed = 0;
  }
}
