/** How often a domain made which hypercall, and what errors it got: always counted, as exits are. */
import { hypercallOf, NR_HYPERCALLS } from "../abi/xen/hypercalls.ts";
import { operationOf } from "../abi/xen/operation.ts";
import { amount, list, record, tuple, whole } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";

/** Calls of one number and operation. */
export interface CallCount {
  /** -1: numbers that nobody has. */
  readonly number: number;
  /** The operation's number; -1 where there is none, or for those that do not exist. */
  readonly sub: number;
  count: number;
  /** How often it gave which result below 0. */
  readonly errors: Map<number, number>;
}

interface Saved {
  readonly calls: readonly {
    readonly number: number;
    readonly sub: number;
    readonly count: number;
    readonly errors: readonly (readonly [number, number])[];
  }[];
}
/** Operations' numbers are below it. */
const SUBS = 2 ** 16;
/** One for each number and operation; and one for a number without. */
const keyOf = (number: number, sub: number) => number * 2 * SUBS + sub + 1;
const SAVED = record({
  calls: list(record({
    number: whole(-1, NR_HYPERCALLS - 1),
    sub: whole(-1, SUBS - 1),
    count: amount,
    errors: list(tuple(whole(-(2 ** 31), -1), amount)),
  })),
});

export class CallCounts {
  readonly #counts = new Map<number, CallCount>();
  #last: CallCount = { number: -1, sub: -1, count: 0, errors: new Map() };

  /** In the order of their numbers. */
  get all(): readonly CallCount[] {
    return [...this.#counts.values()].sort((a, b) => a.number - b.number || a.sub - b.sub);
  }
  /** A call was made: `command` is its first argument. */
  add(number: number, command: number, result: number): void {
    const last = this.#last;
    // Most are what the one before was.
    const same = last.number === number && last.sub === command;
    const count = same ? last : this.#last = this.#find(number, command);
    count.count++;
    if (result < 0) count.errors.set(result, (count.errors.get(result) ?? 0) + 1);
  }
  #find(number: number, command: number): CallCount {
    const known = command < SUBS ? this.#counts.get(keyOf(number, command)) : undefined;
    return known ?? this.#of(number, command);
  }
  /** What a guest makes up is counted together. */
  #of(number: number, command: number): CallCount {
    const row = hypercallOf(number)?.[1];
    const sub = row?.operations ? command & (row.operationMask ?? -1) : -1;
    const known = row?.operations !== undefined && operationOf(row.operations, sub) !== undefined;
    return this.#open(row ? number : -1, known ? sub : -1);
  }
  #open(number: number, sub: number): CallCount {
    const key = keyOf(number, sub);
    let count = this.#counts.get(key);
    if (!count) this.#counts.set(key, count = { number, sub, count: 0, errors: new Map() });
    return count;
  }

  register(blocks: StateRegister): void {
    blocks.register<Saved>({
      name: "hypercalls",
      version: 1,
      shape: SAVED,
      save: () => ({
        calls: this.all.map(({ errors, ...rest }) => ({
          ...rest,
          errors: [...errors].sort(([a], [b]) => a - b),
        })),
      }),
      load: ({ calls }) => {
        this.#counts.clear();
        this.#last = { number: -1, sub: -1, count: 0, errors: new Map() };
        for (const { number, sub, count, errors } of calls) {
          const made = this.#open(number, sub);
          made.count = count;
          for (const [result, times] of errors) made.errors.set(result, times);
        }
      },
    });
  }
}
