/**
 * The one door between the simulated computer and everything outside: console input, the host's
 * clock, entropy, changes made through the API. What comes in is stamped with its position, so
 * that a run can be told again exactly.
 */

/** When something happened: instructions retired by the host, and a number for its order there. */
export interface Position {
  readonly count: number;
  readonly ordinal: number;
}

/** One thing that came from outside. */
export interface WorldEntry {
  readonly position: Position;
  /** What it was: "input", "write", "registers", ... */
  readonly kind: string;
  /** To whom: a domain's id, or 0 for the host. */
  readonly domain: number;
  readonly data: unknown;
}

export class World {
  readonly entries: WorldEntry[] = [];
  #ordinal = 0;
  #random: number;

  constructor(
    /** Seconds since 1970 at machine time 0, as the guests' clocks show them. */
    readonly unixTime: number,
    /** Seed of all randomness the computer is given. */
    readonly seed: number,
    private readonly count: () => number,
  ) {
    this.#random = seed >>> 0 || 1;
  }

  /** Notes that `data` enters now. */
  enter(kind: string, domain: number, data: unknown): WorldEntry {
    const entry = {
      position: { count: this.count(), ordinal: this.#ordinal++ },
      kind,
      domain,
      data,
    };
    this.entries.push(entry);
    return entry;
  }

  /** The next 32 bits of the seeded generator (xorshift). */
  random32(): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return this.#random = x >>> 0;
  }

  /** State to save: the generator. */
  get state(): { random: number; ordinal: number } {
    return { random: this.#random, ordinal: this.#ordinal };
  }
  set state(s: { random: number; ordinal: number }) {
    this.#random = s.random;
    this.#ordinal = s.ordinal;
  }

  /** Waits for the host's clock: an idle guest with a person in front of it does not race ahead. */
  pace(nanoseconds: number, wake: Promise<void>): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const elapsed = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.min(nanoseconds / 1e6, 2 ** 31 - 1));
    });
    return Promise.race([elapsed, wake]).finally(() => clearTimeout(timer));
  }
}
