/** Several domains with real guests: a kernel is the same at its own positions whoever runs beside it. */
import { assert, assertEquals } from "@std/assert";
import { guestsFolder } from "../../repl/guests/images.ts";
import { Hypervisor } from "../../src/debug/hypervisor.ts";

const folder = guestsFolder();
const KERNEL = `${folder}/vmlinux-686-pae`, RAMDISK = `${folder}/tiny-i386.cpio.gz`;
const linux = {
  kernel: KERNEL,
  ramdisk: RAMDISK,
  cmdline: "console=ttyS0 nokaslr mitigations=off cryptomgr.notests noisapnp quiet",
  memory: "128M",
};
const missing = [KERNEL, RAMDISK].find((path) => {
  try {
    return !Deno.statSync(path).isFile;
  } catch {
    return true;
  }
});

/** Own positions; by the last the kernel has its timers and has slept. */
const POSITIONS = [1e6, 7_654_321, 30e6, 60e6];

async function positions(neighbour: boolean): Promise<string[]> {
  await using hv = await Hypervisor.start({ memory: "384M" });
  // The neighbour comes first, so that the other's frames, id and place in the list differ.
  if (neighbour) {
    const beside = await hv.createDomain({ name: "beside", ...linux, weight: 400 });
    await beside.vcpus[0].step(2_500_000);
    beside.unpause();
  }
  const dom = await hv.createDomain({ name: "linux", ...linux });
  const seen: string[] = [];
  for (const count of POSITIONS) {
    await dom.vcpus[0].step(count - dom.statistics().instructions);
    const { instructions, time } = dom.statistics();
    seen.push(`${instructions} ${time} ${dom.stateHash()} ${dom.console.text.length}`);
  }
  if (neighbour) assert(hv.domains[0].statistics().instructions > 40e6);
  return seen;
}

Deno.test({
  name: "a real kernel is the same at its own positions with a neighbour and without" +
    (missing ? `: skipped, no ${missing} (xvm guests fetch)` : ""),
  ignore: missing !== undefined,
  fn: async () => assertEquals(await positions(true), await positions(false)),
});
