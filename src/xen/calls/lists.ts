/** Lists of frames in the guest's memory, and extents of several. */
import type { Call } from "../call.ts";

/** A domain without devices gets extents of 2 MiB at most (CONFIG_DOMU_MAX_ORDER). */
export const MAX_ORDER = 9;

/** The `n`th frame of a list; undefined: EFAULT. */
export function frameAt(call: Call, list: bigint, n: number): bigint | undefined {
  const size = call.width / 8, bytes = call.read(list + BigInt(n * size), size);
  if (!bytes) return undefined;
  const view = new DataView(bytes.buffer);
  return size === 8 ? view.getBigUint64(0, true) : BigInt(view.getUint32(0, true));
}
