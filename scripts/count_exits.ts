/**
 * Counts the exits of a run by kind, and the ports and MSRs that made the most of them.
 *
 * `deno task xvm run scripts/count_exits.ts --kernel vmlinuz --ramdisk initrd.gz`
 *
 * @module
 */
import { guest, runUntil } from "./guest.ts";

await using g = await guest();
const { dom } = g;
const places = new Map<string, number>();
const count = (name: string) => places.set(name, (places.get(name) ?? 0) + 1);
dom.trace("io", {}, (e) => count(`port 0x${e.port.toString(16)} ${e.write ? "write" : "read"}`));
dom.trace("msr", {}, (e) => count(`msr ${e.name} ${e.write ? "write" : "read"}`));
dom.trace("mmio", {}, (e) => count(`page 0x${(e.address & ~0xfffn).toString(16)}`));
await runUntil(g);
console.log(dom.exits);
console.log("\nthe busiest places:");
for (const [name, n] of [...places].sort((a, b) => b[1] - a[1]).slice(0, 10)) {
  console.log(`${String(n).padStart(9)}  ${name}`);
}
