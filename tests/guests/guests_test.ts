// Real kernels from Debian's packages, booted to the end of their initramfs with exact results.
// The images come from `xvm guests fetch`, in XVM_GUESTS or the cache folder.
import { assertEquals } from "@std/assert";
import { guestsFolder } from "../../repl/guests/images.ts";
import { EXPECTED_LINES } from "../../repl/guests/initramfs.ts";
import { run, type RunOptions } from "../conformance/run.ts";

/** What keeps Linux short on the console. */
const CMDLINE = "console=ttyS0 nokaslr mitigations=off cryptomgr.notests noisapnp quiet";

type Way = Pick<RunOptions, "type" | "cpu" | "paging" | "memory">;

interface Boot {
  readonly kernel: string;
  readonly ramdisk: string;
  readonly ways: readonly Way[];
}

const BARE: Way = { type: "bare" };
const INTEL: Way = { type: "hvm" }, INTEL_SHADOW: Way = { type: "hvm", paging: "shadow" };
const AMD: Way = { type: "hvm", cpu: "amd" };
const AMD_SHADOW: Way = { type: "hvm", cpu: "amd", paging: "shadow" };
/** The most a guest can have: its frames, and for bare ones its addresses, lie on both sides of 2 GiB. */
const most = (way: Way): Way => ({ ...way, memory: 3 * 2 ** 30 });

/**
 * A bzImage by the boot protocol; an ELF file with a PVH note by that. Each way and each kernel is
 * here, not all of their pairs: those are `deno task matrix`.
 */
const BOOTS: readonly Boot[] = [
  {
    kernel: "vmlinuz-686",
    ramdisk: "tiny-i386.cpio.gz",
    ways: [BARE, INTEL, INTEL_SHADOW, AMD_SHADOW],
  },
  {
    kernel: "vmlinux-686-pae",
    ramdisk: "tiny-i386.cpio.gz",
    ways: [BARE, INTEL, INTEL_SHADOW, AMD],
  },
  {
    kernel: "vmlinux-cloud",
    ramdisk: "tiny-amd64.cpio.gz",
    ways: [most(BARE), most(INTEL_SHADOW), most(AMD), AMD_SHADOW],
  },
];

/** Instructions; a 686 boot takes 5.2 thousand million. */
const LIMIT = 12e9;

const folder = guestsFolder();
for (const { kernel, ramdisk, ways } of BOOTS) {
  const missing = [kernel, ramdisk].find((file) => !exists(`${folder}/${file}`));
  for (const way of ways) {
    const name = `${kernel} boots to GUEST-DONE, ${nameOf(way)}`;
    Deno.test({
      name: missing ? `${name}: skipped, no ${missing} in ${folder} (xvm guests fetch)` : name,
      ignore: missing !== undefined,
      fn: () => boot(`${folder}/${kernel}`, `${folder}/${ramdisk}`, way),
    });
  }
}

function nameOf({ memory, ...way }: Way): string {
  return [...Object.values(way), ...memory ? [`${memory / 2 ** 30} GiB`] : []].join(", ");
}

async function boot(
  image: string,
  ramdisk: string,
  way: Way,
): Promise<void> {
  const outcome = await run({
    image,
    ramdisk,
    ...way,
    cmdline: CMDLINE,
    limit: LIMIT,
    until: EXPECTED_LINES.at(-1),
  });
  assertEquals(outcome.end, "until", `${outcome.text.slice(-2000)}\n${outcome.lastFault}`);
  const lines = outcome.text.trimEnd().split(/\r?\n/);
  const results = lines.slice(lines.findIndex((line) => line.startsWith(EXPECTED_LINES[0])));
  results[0] = EXPECTED_LINES[0]; // the uptime behind it is the guest's own
  assertEquals(results.slice(0, EXPECTED_LINES.length), EXPECTED_LINES);
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
