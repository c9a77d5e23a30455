/**
 * What hypercalls a boot makes: counted by name, operation and error; with `--trace` each of them as it
 * is made.
 *
 * `deno task xvm run scripts/hypercalls.ts --kernel vmlinux --ramdisk initrd.gz [--trace] [--help]`
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { Hypervisor } from "xvm";

const given = parseArgs(Deno.args, {
  string: ["kernel", "ramdisk", "cmdline", "memory", "cpu", "paging", "until"],
  boolean: ["trace", "help"],
});
if (given.help || !given.kernel) {
  console.log(`The hypercalls of a PVH kernel's boot, by name:

  deno task xvm run scripts/hypercalls.ts --kernel FILE [OPTIONS]

  --ramdisk  its ramdisk
  --cmdline  its command line (console=hvc0 nokaslr quiet)
  --memory   its memory (256M)
  --cpu      intel or amd (intel)
  --paging   hap or shadow (hap)
  --until    the text on its console that ends the boot (GUEST-READY)
  --trace    prints each call, with its arguments and its result`);
  Deno.exit(given.help ? 0 : 2);
}
await using hv = await Hypervisor.start({ cpu: given.cpu as "intel" | "amd", memory: "1G" });
const dom = await hv.createDomain({
  name: "guest",
  type: "pvh",
  xen: true,
  kernel: given.kernel,
  ramdisk: given.ramdisk,
  cmdline: given.cmdline ?? "console=hvc0 nokaslr quiet",
  memory: given.memory ?? "256M",
  paging: given.paging as "hap" | "shadow",
});
if (given.trace) {
  dom.trace("hypercall", {}, (call) => console.log(`${call.position.count}  ${call.describe()}`));
}
const shown = dom.console.shows(given.until ?? "GUEST-READY");
dom.unpause();
await Promise.race([shown, dom.ended]);
console.log(dom.hypercalls);
