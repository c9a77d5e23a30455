/**
 * The watches of a domain, found by page: an access asks only those of its own. Wide ones stand in no
 * page's list but in one of their own, so that a watch of all memory costs no more than others.
 */

/** Memory whose accesses are to be seen. */
export interface Watch {
  /** By linear address in whatever address space, or by machine address. */
  readonly space: "linear" | "machine";
  /** Ranges [from, to). Linear ones may lie anywhere in 64 bits, so they are `bigint`. */
  readonly ranges: readonly (readonly [from: bigint, to: bigint])[];
  readonly read: boolean;
  readonly write: boolean;
}

/** Bytes of machine memory in one page. */
export interface Part {
  readonly machine: number;
  readonly bytes: number;
}

/** Ranges of more pages than this are wide. */
const WIDE = 64n;
const NONE: ReadonlySet<Watch> = new Set();

/** Number of the page of a linear or machine address given as halves: exact, below 2^52. */
const pageNumber = (low: number, high: number): number => (high >>> 0) * 2 ** 20 + (low >>> 12);

const overlaps = ({ ranges }: Watch, from: bigint, to: bigint): boolean =>
  ranges.some((r) => r[0] < to && r[1] > from);

class Pages {
  readonly #byPage = new Map<number, Set<Watch>>();
  readonly #wide = new Set<Watch>();

  change(watch: Watch, on: boolean): void {
    for (const [from, to] of watch.ranges) {
      const first = from >> 12n, last = (to - 1n) >> 12n;
      if (last - first >= WIDE) {
        if (on) this.#wide.add(watch);
        else this.#wide.delete(watch);
        continue;
      }
      for (let page = first; page <= last; page++) this.#changePage(Number(page), watch, on);
    }
  }
  #changePage(page: number, watch: Watch, on: boolean): void {
    const list = this.#byPage.get(page);
    if (!on) {
      list?.delete(watch);
      if (list?.size === 0) this.#byPage.delete(page);
    } else if (list) list.add(watch);
    else this.#byPage.set(page, new Set([watch]));
  }

  /** Does a watch lie in the page? */
  has(page: number): boolean {
    if (this.#byPage.has(page)) return true;
    if (this.#wide.size === 0) return false;
    const from = BigInt(page) << 12n;
    return [...this.#wide].some((w) => overlaps(w, from, from + 4096n));
  }

  /** Those that an access touches; it may reach into the next page. */
  *touched(page: number, from: bigint, to: bigint): Iterable<Watch> {
    const last = Number((to - 1n) >> 12n);
    const lists = [this.#byPage.get(page), last === page ? undefined : this.#byPage.get(last)];
    for (const watch of new Set(lists.flatMap((list) => [...list ?? NONE]).concat(...this.#wide))) {
      if (overlaps(watch, from, to)) yield watch;
    }
  }
}

export class Watches {
  readonly #all = new Set<Watch>();
  readonly #linear = new Pages();
  readonly #machine = new Pages();

  get all(): Iterable<Watch> {
    return this.#all;
  }
  get size(): number {
    return this.#all.size;
  }

  /** Adds a watch or takes it away. */
  set(watch: Watch, on: boolean): void {
    if (this.#all.has(watch) === on) return;
    if (on) this.#all.add(watch);
    else this.#all.delete(watch);
    (watch.space === "linear" ? this.#linear : this.#machine).change(watch, on);
  }

  /** Does a watch lie in the page of a linear address, or in a machine frame? */
  inPage(low: number, high: number, frame: number): boolean {
    return this.#linear.has(pageNumber(low, high)) || this.#machine.has(frame >>> 0);
  }

  /** The watches that want to see an access, which lies in machine memory at `parts`. */
  hit(low: number, high: number, parts: readonly Part[], write: boolean): Watch[] {
    const from = BigInt(high >>> 0) << 32n | BigInt(low >>> 0);
    const length = parts.reduce((sum, { bytes }) => sum + bytes, 0);
    const touched = new Set(
      this.#linear.touched(pageNumber(low, high), from, from + BigInt(length)),
    );
    for (const { machine, bytes } of parts) {
      const at = BigInt(machine);
      const there = this.#machine.touched(pageNumber(machine, 0), at, at + BigInt(bytes));
      for (const watch of there) touched.add(watch);
    }
    return [...touched].filter((w) => write ? w.write : w.read);
  }
}
