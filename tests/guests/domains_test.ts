/**
 * Several domains with real guests: a kernel is the same at its own positions whoever runs beside it,
 * and the race of scripts/race.ts repeats.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
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

Deno.test("scripts/race.ts replays a race to the same winners at the same instructions", async () => {
  const root = new URL("../../", import.meta.url).pathname;
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", `${root}repl/main.ts`, "run", `${root}scripts/race.ts`],
    env: { NO_COLOR: "1" },
    cwd: root,
  }).output();
  const text = new TextDecoder().decode(stdout);
  assertEquals(code, 0, text);
  assertStringIncludes(text, "the same seed gave the same winners at the same instructions");
  // The columns of another seed and of another weight differ somewhere.
  const columns = [0, 1, 2, 3].map((n) =>
    text.split("\n").filter((line) => /^ +\d+ {3}/.test(line))
      .map((line) => line.slice(8).match(/\S+ +at [\d,]+/g)![n]).join()
  );
  assertEquals(columns[1], columns[0]);
  assert(columns[2] !== columns[0] && columns[3] !== columns[0]);
});
