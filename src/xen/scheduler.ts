/**
 * Who runs next on the processor, in the manner of Xen's credit2: a domain that runs burns credit,
 * the slower the higher its weight, and the one with most credit left runs. Everything is counted in
 * nanoseconds of machine time, which are instructions; so a schedule is a function of the guests, the
 * seed and what entered from outside, and repeats exactly.
 */
import { amount, finite, orNull, record, type Shape, time, u32, whole } from "../machine/shape.ts";
import { refuse, type StateRegister } from "../machine/state_block.ts";

/** Xen's default weight, and the range it allows. */
export const WEIGHT = { default: 256, min: 1, max: 65535 } as const;
/** Credit of a fresh domain, and what everybody gets when the best has none left (ns). */
const CREDIT = 10_500_000;
/** Longest and shortest turn while others wait (ns); the seed picks between them. */
const TURN = { longest: 1_000_000, shortest: 200_000 } as const;
/** A cap is a share of each window (ns). */
const WINDOW = 10_000_000;

/** What the scheduler knows of a domain. */
export interface Share {
  /** Share of the processor beside others, 1 to 65535. */
  weight: number;
  /** Most of the processor it gets, in percent; 0: no cap. */
  cap: number;
  credit: number;
  /** Time on the processor (ns). */
  used: number;
  /** Machine time when the domain was made. */
  readonly since: number;
  /** The window that `usedInWindow` counts. */
  window: number;
  usedInWindow: number;
  /** Number of its last turn: among equals the one runs that waited longest. */
  turn: number;
  /** Time on the processor (ns) that its credit has not paid for yet: that of its last turn. */
  owed: number;
}

export const SHARE_SHAPE: Shape = record({
  weight: whole(1, 65535),
  cap: whole(0, 100),
  credit: finite,
  used: amount,
  since: amount,
  window: amount,
  usedInWindow: amount,
  turn: amount,
  owed: amount,
});

/** Who has the processor, by domain id, and until which machine time. */
export interface Turn {
  readonly domain: number;
  readonly ends: number;
}

/** Refuses what is no weight. @throws {RangeError} */
export function checkWeight(weight: number): number {
  if (Number.isInteger(weight) && weight >= WEIGHT.min && weight <= WEIGHT.max) return weight;
  throw new RangeError(
    `weight: a whole number from ${WEIGHT.min} to ${WEIGHT.max} was expected (${WEIGHT.default} if ` +
      `not given), ${weight} was given`,
  );
}

/** Refuses what is no cap. @throws {RangeError} */
export function checkCap(cap: number): number {
  if (Number.isInteger(cap) && cap >= 0 && cap <= 100) return cap;
  throw new RangeError(
    `cap: percent of the processor from 1 to 100 was expected, or 0 for no cap; ${cap} was given`,
  );
}

export class Scheduler {
  #random: number;
  #turns = 0;
  /**
   * The turn that is under way. It may be run in as many parts as the host likes; it is over at its
   * end, or when its domain waits.
   */
  turn: Turn | null = null;

  /** @param seed picks the lengths of turns, and who of equals begins */
  constructor(seed: number, private readonly now: () => number) {
    // Not the stream that frames and guests draw from: they see the same whoever runs beside them.
    this.#random = Math.imul(seed ^ 0x5bd1e995, 0x9e3779b1) >>> 0 || 1;
  }

  /** @param known whether there is a domain of an id */
  register(blocks: StateRegister, known: (id: number) => boolean): void {
    blocks.register<{ random: number; turns: number; turn: Turn | null }>({
      name: "scheduler",
      version: 1,
      shape: record({
        random: u32,
        turns: amount,
        turn: orNull(record({ domain: amount, ends: time })),
      }),
      save: () => ({ random: this.#random, turns: this.#turns, turn: this.turn }),
      check: ({ turn }) => {
        if (!turn || known(turn.domain)) return;
        refuse(`scheduler: the turn is domain ${turn.domain}'s, which is not here`);
      },
      load: ({ random, turns, turn }) => {
        this.#random = random;
        this.#turns = turns;
        this.turn = turn;
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

  /** The share of a fresh domain. */
  join(weight: number = WEIGHT.default, cap = 0): Share {
    return {
      weight: checkWeight(weight),
      cap: checkCap(cap),
      // Equals begin in an order that the seed chooses.
      credit: CREDIT + this.#draw(1000),
      used: 0,
      since: this.now(),
      window: 0,
      usedInWindow: 0,
      turn: 0,
      owed: 0,
    };
  }

  /** Nanoseconds that a share's cap leaves it now; Infinity without a cap. */
  allowance(share: Share): number {
    if (share.cap === 0) return Infinity;
    const window = Math.floor(this.now() / WINDOW);
    if (window !== share.window) {
      share.window = window;
      share.usedInWindow = 0;
    }
    return Math.floor(WINDOW * share.cap / 100) - share.usedInWindow;
  }

  /** Machine time at which caps allow more. */
  get nextWindow(): number {
    return (Math.floor(this.now() / WINDOW) + 1) * WINDOW;
  }

  /**
   * Which of the domains that can run has its turn, all of them within their caps. When the best of
   * them has no credit left, everybody in `all` gets some.
   */
  choose<D extends { readonly share: Share }>(runnable: readonly D[], all: readonly D[]): D {
    for (const { share } of all) this.settle(share);
    let best = runnable[0];
    for (const d of runnable) {
      const more = d.share.credit - best.share.credit;
      if (more > 0 || (more === 0 && d.share.turn < best.share.turn)) best = d;
    }
    if (best.share.credit <= 0) {
      // As often as it takes the best to have some; whoever waited keeps no more than a fresh one has.
      const more = CREDIT * (Math.floor(-best.share.credit / CREDIT) + 1);
      for (const { share } of all) share.credit = Math.min(share.credit + more, CREDIT);
    }
    best.share.turn = ++this.#turns;
    return best;
  }

  /** Length of a turn (ns), beside others that can run or alone. */
  turnLength(alone: boolean): number {
    return alone ? TURN.longest : TURN.shortest + this.#draw(TURN.longest - TURN.shortest);
  }

  /** A domain has its turn, until machine time `ends`; Infinity if it has the host for itself. */
  begin<D extends { readonly id: number }>(domain: D, ends: number): D {
    this.turn = { domain: domain.id, ends };
    return domain;
  }

  /** A domain was on the processor for `time` ns of its turn. */
  burn(share: Share, time: number): void {
    share.used += time;
    share.usedInWindow += time;
    if (this.turn && this.turn.ends < Infinity) share.owed += time;
  }
  /** A turn's time is paid for at once, at the weight there is: in how many parts it ran is nobody's. */
  settle(share: Share): void {
    share.credit -= share.owed * WEIGHT.default / share.weight;
    share.owed = 0;
  }
}
