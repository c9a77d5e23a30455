/**
 * Logs every CR3 write of a run: the guest switches to another address space. Prints each new one,
 * and the rate of switches in each tenth of a second of guest time.
 *
 * `deno task xvm run scripts/cr3_writes.ts --kernel vmlinuz --ramdisk initrd.gz`
 *
 * @module
 */
import { counted } from "../src/builder/errors.ts";
import { guest, runUntil } from "./guest.ts";

await using g = await guest();
const { dom } = g;
const spaces = new Map<bigint, number>();
const rate: number[] = [];
let last = 0n;
const trace = dom.trace("cr", { cr: 3, write: true }, ({ value, position, vcpu }) => {
  // Writing the same value again only empties the TLB.
  if (value === last) return;
  last = value;
  const tenth = Math.floor(position.time / 1e8);
  rate[tenth] = (rate[tenth] ?? 0) + 1;
  if (!spaces.has(value)) {
    const from = vcpu.backtrace(1)[0];
    console.log(
      `${(position.time / 1e9).toFixed(6)} s  address space ${spaces.size + 1}: cr3 0x${
        value.toString(16)
      }  at ${from.symbol ?? `0x${from.address.toString(16)}`}`,
    );
  }
  spaces.set(value, (spaces.get(value) ?? 0) + 1);
});
await runUntil(g);
console.log(
  `\n${counted(trace.hits, "CR3 write")}, ${
    counted(spaces.size, "address space")
  }; switches per 0.1 s:`,
);
for (let i = 0; i < rate.length; i++) {
  if (rate[i]) console.log(`${(i / 10).toFixed(1)} s  ${String(rate[i]).padStart(6)}`);
}
