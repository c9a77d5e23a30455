/** Slices of random length in place of the clock's: nothing a guest sees may depend on them. */
import type { Attention } from "./world_attention.ts";

/** What stands in for the process's {@linkcode Attention}, and how many slices there were. */
export interface Slices extends Pick<Attention, "due" | "begin" | "end"> {
  readonly count: number;
}

/** Polls on the way to an instruction: a slice of fewer gets nowhere. */
const LEAST = 6;

/** Slices that end after `mean` polls on average; each seed has others. */
export function randomSlices(seed: number, mean: number): Slices {
  let random = Math.imul(seed, 0x9e37_79b1) | 1, left = 0, count = 0;
  const next = () => {
    random ^= random << 13;
    random ^= random >>> 17;
    random ^= random << 5;
    return (random >>> 0) % (2 * mean);
  };
  return {
    begin: () => {
      left = LEAST + next();
      count++;
    },
    end: () => {},
    due: () => left-- <= 0,
    get count() {
      return count;
    },
  };
}
