/** What a hypercall costs: xen_version in a guest's loop, through the hypercall page, each made in TypeScript. */
import { HYPERCALL_STUB_SIZE } from "../../src/abi/xen/cpuid.ts";
import { HYPERCALLS } from "../../src/abi/xen/hypercalls.ts";
import { CallGuest } from "../../src/debug/testing/calls.ts";
import { hypercallPage } from "../../src/xen/hypercalls.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";
import { rate } from "./exits.ts";

/** Where the hypercall page lies. */
const PAGE = 0x18_0000;
const MEASURED = 1_000_000;

/** Hypercalls a second of CPU time, of a guest's code of a width, as the median of `runs`. */
export async function hypercallRate(runs: number, cpu: CpuModel, width: 32 | 64): Promise<number> {
  const made = await CallGuest.make({ cpu, type: "hvm", paging: "hap", width });
  const { guest, engine: { ops, vcpu } } = made, { host } = guest;
  guest.write(PAGE, hypercallPage(ops.hypercallInstruction));
  const stub = PAGE + HYPERCALL_STUB_SIZE * HYPERCALLS.xen_version.number;
  const first = width === 64 ? "edi" : "ebx";
  guest.enter(
    width === 64 ? "long" : "pae",
    `again: xor ${first}, ${first}\ncall ${stub}\njmp again`,
  );
  const done = () => vcpu.exits.hypercall ?? 0;
  return rate(runs, () => {
    const before = done();
    while (done() - before < MEASURED) host.runOnce(100_000);
    return done() - before;
  });
}
