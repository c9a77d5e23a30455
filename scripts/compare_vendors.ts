/**
 * One guest on two configurations: a table of exit kinds and counts, the first exit that differs with
 * both raw records, and whether console and guest-visible state came out the same. The demo guest on
 * intel and amd, unless told otherwise; both show the guest the processor "common".
 *
 * `deno task xvm run scripts/compare_vendors.ts [A B] [--kernel F --ramdisk F --cmdline S
 * --memory SIZE --type hvm|pvh --cpuid MODEL --until TEXT]`
 *
 * A and B are made of intel, amd, hap, shadow, cpuid:MODEL and seed:N, joined by `+`. Exit status 1 if
 * the guest could tell the two apart.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { compare, type Configuration, configurationOf } from "xvm";

const { _: sides, until, ...domain } = parseArgs(Deno.args, {
  string: ["_", "kernel", "ramdisk", "cmdline", "memory", "type", "cpuid", "until"],
});
if (sides.length !== 0 && sides.length !== 2) {
  console.error(`compare_vendors: two configurations are needed, got ${sides.join(" ")}`);
  Deno.exit(2);
}
const [a, b] = (sides.length ? sides.map(String) : ["intel", "amd"]).map((word): Configuration => {
  const { host, domain: own } = configurationOf(word);
  const guest = { cpuid: "common", ...domain, ...own };
  return { host, domain: guest as Configuration["domain"] };
});
const end = until ?? (domain.kernel ? "GUEST-READY" : "power off");
const result = await compare(a, b, { until: end });
console.log(result);
Deno.exit(result.equal ? 0 : 1);
