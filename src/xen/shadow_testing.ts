/** What must hold of shadow paging, for the tests of this folder. */
import { assert, assertEquals } from "@std/assert";
import type { Shadow } from "./shadow.ts";
import { isGuestTable, KIND } from "./shadow_pool.ts";

/** Throws unless the pool is as it must be at any time: entries, reverse maps, rights. */
export function checkPool({ pool, p2m }: Shadow): void {
  const { machine } = pool.frames;
  for (let slot = 0; slot < pool.slots; slot++) {
    let present = 0;
    const leaf = ([KIND.pt32, KIND.ptPae, KIND.pt64, KIND.pages] as number[])
      .includes(pool.kind[slot]);
    for (let index = 0; index < 512; index++) {
      const node = slot * 512 + index, target = pool.target[node];
      const low = machine.words[pool.place(node) >>> 2];
      if (((low & 1) !== 0) !== (target >= 0)) throw new Error(`slot ${slot}, entry ${index}`);
      if (target < 0) continue;
      present++;
      const frame = leaf ? p2m.machineFrame(target) : pool.frame[target];
      if (low >>> 12 !== frame) throw new Error(`slot ${slot}, entry ${index}: frame ${frame}`);
      // No table of the guest may be written through any mapping.
      if (leaf && low & 2) assert(!pool.isTable(target) && p2m.writable(target));
      if (!leaf) assert(pool.kind[target] !== KIND.free);
    }
    assertEquals(pool.present[slot], present);
    if (isGuestTable(pool.kind[slot])) assert(pool.isTable(pool.guest[slot]));
  }
}
