/**
 * Stops at a page fault of the guest, and shows the walk that failed and the code that did it. By
 * default the first write; `--skip N` passes over N of them.
 *
 * `deno task xvm run scripts/page_fault.ts --kernel vmlinuz --ramdisk initrd.gz --skip 10`
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { guest } from "./guest.ts";

const WRITE = 2;

await using g = await guest();
const { dom } = g;
const skip = Number(parseArgs(Deno.args, { string: ["skip"] }).skip ?? 0);
if (dom.name === "demo") dom.console.write("f");
let seen = 0;
const stop = await dom.until(
  "exception",
  { vector: "#PF" },
  (e) => (e.errorCode! & WRITE) !== 0 && seen++ >= skip,
);
const { vcpu } = stop;
console.log(stop);
console.log(vcpu.pageTables.walk(stop.address!));
console.log(vcpu.disassemble(undefined, 3));
console.log(vcpu.backtrace());
console.log(vcpu.why());
