/**
 * Which processor of a host runs next, and how far. They run one after the other: the one that is
 * furthest behind runs a leg, whose length the seed picks, while others have something to do. So none is
 * ahead of another that works by more than a leg, and one that has nothing to do goes along.
 */
import { amount, orNull, record, time } from "../machine/shape.ts";
import { refuse, type StateRegister } from "../machine/state_block.ts";
import type { Processor } from "./processor.ts";
import { LONGEST_TURN } from "./scheduler.ts";

interface Leg {
  readonly processor: number;
  /** Machine time on its clock. */
  readonly ends: number;
}
const LEG = record({ processor: amount, ends: time });

export class Legs {
  /** The leg that is under way, in however many parts it runs. */
  #leg: Leg | null = null;

  constructor(
    private readonly processors: readonly Processor[],
    private readonly lengths: { leg(): number },
  ) {}

  register(blocks: StateRegister): void {
    blocks.register<{ leg: Leg | null }>({
      name: "legs",
      version: 1,
      shape: record({ leg: orNull(LEG) }),
      save: () => ({ leg: this.#leg }),
      check: ({ leg }) => {
        if (!leg || leg.processor < this.processors.length) return;
        refuse(`legs: the leg is processor ${leg.processor}'s, which is not here`);
      },
      load: ({ leg }) => void (this.#leg = leg),
    });
  }

  /** Number of the processor whose leg is under way, or was the last. */
  get processor(): number {
    return this.#leg?.processor ?? 0;
  }
  /** Machine time at which the processor that runs has gone far enough; Infinity: nobody waits for it. */
  get ends(): number {
    return this.#leg?.ends ?? Infinity;
  }
  /** Another has something to do now. */
  end(now: number): void {
    if (this.#leg) this.#leg = { ...this.#leg, ends: Math.min(this.#leg.ends, now) };
  }

  /**
   * The processor that runs next; undefined if none has anything to do.
   *
   * @param isBusy whether it has something to do; looking may wake what waits there
   * @param wake machine time at which something that waits is to be looked at
   */
  next(isBusy: (processor: Processor) => boolean, wake: () => number): Processor | undefined {
    const { processors } = this, leg = this.#leg;
    if (processors.length === 1) return processors[0];
    const under = leg && processors[leg.processor];
    if (leg && under && under.now < leg.ends && isBusy(under)) return under;
    for (;;) {
      let first: Processor | undefined, busy = 0;
      for (const one of processors) {
        if (!isBusy(one)) continue;
        busy |= 1 << one.id;
        if (!first || one.now < first.now) first = one;
      }
      if (!first) return undefined;
      if (this.#follow(first.now, busy, isBusy, wake)) continue;
      const alone = busy === 1 << first.id;
      // Somebody may let a domain go on meanwhile that runs elsewhere.
      const most = Math.min(LONGEST_TURN, Math.max(1, wake() - first.now));
      const length = alone ? most : this.lengths.leg();
      this.#leg = { processor: first.id, ends: first.now + length };
      return first;
    }
  }

  /**
   * Those that have nothing to do get to `now`, or until they have. True if one has.
   *
   * @param busy a bit for each processor that has something to do
   */
  #follow(
    now: number,
    busy: number,
    isBusy: (processor: Processor) => boolean,
    wake: () => number,
  ): boolean {
    for (const idle of this.processors) {
      if (busy & 1 << idle.id || idle.now >= now) continue;
      idle.cpu.skipTo(Math.min(now, Math.max(wake(), idle.now)));
      idle.interrupts?.handlePending();
      if (isBusy(idle)) return true;
    }
    return false;
  }
}
