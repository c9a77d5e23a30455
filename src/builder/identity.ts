/**
 * Page tables for 64-bit kernels, which are entered with paging on.
 *
 * @module
 */
import { PC } from "../abi/boot/e820.ts";
import type { Placement } from "./placement.ts";

const PRESENT_WRITE = 0x3n, LARGE = 0x80n;

/**
 * Page tables that map the first 4 GB to themselves in 2 MB pages: a PML4, a PDPT and four page
 * directories (SDM vol. 3A, 4.5).
 *
 * @returns Guest-physical address of the PML4.
 */
export function identityTables(place: Placement): number {
  const bytes = new Uint8Array(6 * 4096);
  const view = new DataView(bytes.buffer);
  const where = { below: PC.ebda, align: 4096 };
  const base = place.find("page tables", bytes.length, where);
  const table = (n: number) => BigInt(base + n * 4096) | PRESENT_WRITE;
  view.setBigUint64(0, table(1), true);
  for (let i = 0; i < 4; i++) view.setBigUint64(4096 + i * 8, table(2 + i), true);
  for (let i = 0; i < 2048; i++) {
    view.setBigUint64(2 * 4096 + i * 8, BigInt(i) << 21n | LARGE | PRESENT_WRITE, true);
  }
  place.put("page tables", base, bytes);
  return base;
}
