/** SCHEDOP_watchdog: a domain has two timers that end it, unless it sets them anew in time. */
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { orNull, type Shape, time, tuple } from "../machine/shape.ts";

/** When each rings (ns of the domain's own time; Infinity: it has); null: nobody has it. */
export type SavedWatchdogs = readonly (number | null)[];
export const WATCHDOGS_SHAPE: Shape = tuple(orNull(time), orNull(time));

const NUMBER = 2, SECOND = 1e9;

export class Watchdogs {
  #due: (number | null)[] = Array(NUMBER).fill(null);

  /** @param changed told when the earliest may be another */
  constructor(private readonly now: () => number, private readonly changed: () => void) {}

  /** Id 0: a fresh one, whose id is the result; no time: that one is given back. Or an errno. */
  set(id: number, seconds: number): number {
    if (id > NUMBER) return -XEN_ERRNO.EINVAL;
    const n = id === 0 ? this.#due.indexOf(null) : id - 1;
    if (n < 0) return -XEN_ERRNO.ENOSPC;
    if (id > 0 && this.#due[n] === null) return -XEN_ERRNO.EINVAL;
    this.#due[n] = id > 0 && seconds === 0 ? null : this.now() + seconds * SECOND;
    this.changed();
    return id === 0 ? n + 1 : 0;
  }
  /** Infinity: none is set. */
  get deadline(): number {
    return Math.min(...this.#due.map((due) => due ?? Infinity));
  }
  /** True if one rings: once each. */
  rings(now: number): boolean {
    const rang = this.#due.some((due) => due !== null && due <= now);
    this.#due = this.#due.map((due) => due !== null && due <= now ? Infinity : due);
    return rang;
  }
  save(): SavedWatchdogs {
    return [...this.#due];
  }
  load(saved: SavedWatchdogs): void {
    this.#due = [...saved];
  }
}
