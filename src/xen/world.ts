/**
 * The one door between the simulated computer and everything outside: console input, the host's
 * clock, entropy, changes made through the API. What comes in is stamped with its position, so
 * that a run can be told again exactly.
 */
import { amount, checkOrder, list, record, tuple, u32 } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";

/** When something happened: instructions retired by the host, and a number for its order there. */
interface Position {
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

const GOLDEN = 0x9e37_79b1;

/** A step of xorshift on 32 bits. */
function step(x: number): number {
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  return x >>> 0;
}

/** FNV-1a of a text. */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x0100_0193);
  return hash >>> 0;
}

/** What is kept of the entries: so many, and so many bytes of what came in with them. */
export const ENTRIES_KEPT = { count: 10_000, bytes: 16 << 20 } as const;

/** Bytes that an entry's data holds. */
function bytesOf(data: unknown): number {
  if (data instanceof Uint8Array) return data.length;
  const { bytes } = (data ?? {}) as { bytes?: unknown };
  return bytes instanceof Uint8Array ? bytes.length : 0;
}

export class World {
  #entries: (WorldEntry | undefined)[] = [];
  /** Where the kept ones begin, and how much they hold. */
  #first = 0;
  #bytes = 0;
  #ordinal = 0;
  #random: number;
  readonly #guests = new Map<number, number>();

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
    this.#entries.push(entry);
    this.#bytes += bytesOf(data);
    this.#drop();
    return entry;
  }

  /** The entries that are kept: the last ones. */
  get entries(): readonly WorldEntry[] {
    return this.#entries.slice(this.#first) as WorldEntry[];
  }
  /** How many entries there were that are not kept any longer. */
  dropped = 0;

  #drop(): void {
    while (
      this.#entries.length - this.#first > ENTRIES_KEPT.count || this.#bytes > ENTRIES_KEPT.bytes
    ) {
      this.#bytes -= bytesOf(this.#entries[this.#first]?.data);
      this.#entries[this.#first++] = undefined;
      this.dropped++;
    }
    if (this.#first < ENTRIES_KEPT.count) return;
    this.#entries = this.#entries.slice(this.#first);
    this.#first = 0;
  }

  /** The next 32 bits of the seeded generator (xorshift). */
  random32(): number {
    return this.#random = step(this.#random);
  }

  /**
   * 32 random bits for a domain's RDRAND and RDSEED: a stream of its own, by the host's seed and the
   * domain's name, so that neither what the host draws (the order of frames, say) nor who else is on
   * it changes what the guest sees.
   */
  randomFor({ id, name }: { readonly id: number; readonly name: string }): number {
    const x = step(this.#guests.get(id) ?? ((this.seed ^ hashOf(name)) >>> 0 || 1));
    this.#guests.set(id, x);
    // One multiplication more, because a step's neighbours look alike.
    return Math.imul(x ^ x >>> 15, GOLDEN) >>> 0;
  }

  /** Its state: the generators, and the count of entries. */
  register(blocks: StateRegister): void {
    blocks.register<{ random: number; ordinal: number; guests: [number, number][] }>({
      name: "world",
      version: 1,
      shape: record({ random: u32, ordinal: amount, guests: list(tuple(amount, u32)) }),
      save: () => ({
        random: this.#random,
        ordinal: this.#ordinal,
        guests: [...this.#guests].sort((a, b) => a[0] - b[0]),
      }),
      check: ({ guests }) => checkOrder("world", guests),
      load: ({ random, ordinal, guests }) => {
        this.#random = random;
        this.#ordinal = ordinal;
        this.#guests.clear();
        for (const [domain, x] of guests) this.#guests.set(domain, x);
      },
    });
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
