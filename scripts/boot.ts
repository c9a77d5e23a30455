/**
 * Boots a kernel and shows its console; then what it took.
 *
 * `deno task xvm run scripts/boot.ts --kernel vmlinuz --ramdisk initrd.gz --until login:`
 *
 * @module
 */
import { counted } from "../src/builder/errors.ts";
import { guest, runUntil } from "./guest.ts";

await using g = await guest();
const { dom } = g;
dom.console.onOutput((text) => Deno.stdout.writeSync(new TextEncoder().encode(text)));
const start = performance.now();
await runUntil(g);
const seconds = (performance.now() - start) / 1000;
const { instructions, time } = dom.statistics();
console.log(
  `\n${counted(instructions, "instruction")} in ${seconds.toFixed(1)} s, guest time ${
    (time / 1e9).toFixed(3)
  } s, state ${dom.stateHash()}`,
);
