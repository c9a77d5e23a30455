/** Debian's real kernels, when `xvm guests fetch` has made them; without them these are skipped. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { BuilderError } from "./errors.ts";
import { readElf } from "./elf.ts";
import { loadGuest } from "./images.ts";
import { kallsymsTable } from "./kallsyms.ts";
import { extractPayload } from "./payload.ts";
import { readSystemMap } from "./symbols.ts";
import { TestMemory } from "./testing.ts";
import { readXenNotes } from "./xen_notes.ts";

const folder = Deno.env.get("XVM_GUESTS") ??
  `${Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME")}/.cache`}/xvm/guests`;
const MB = 1 << 20;

function exists(name: string): boolean {
  try {
    return Deno.statSync(`${folder}/${name}`).isFile;
  } catch {
    return false;
  }
}

const image = (file: string) => ({ file, bytes: Deno.readFileSync(`${folder}/${file}`) });

function guestTest(name: string, needs: string[], fn: () => void | Promise<void>): void {
  Deno.test({ name, ignore: !needs.every(exists), fn });
}

guestTest(
  "vmlinuz-686 carries vmlinux-686, byte for byte",
  ["vmlinuz-686", "vmlinux-686"],
  async () => {
    const vmlinux = await extractPayload(image("vmlinuz-686").bytes, "vmlinuz-686");
    const expected = image("vmlinux-686").bytes;
    // assertEquals on 16 MB would take seconds.
    assert(vmlinux.length === expected.length && vmlinux.every((b, i) => b === expected[i]));
  },
);

guestTest("vmlinux-686 names its symbols itself", ["vmlinux-686", "System.map-686"], () => {
  const table = kallsymsTable(readElf(image("vmlinux-686").bytes, "vmlinux-686"))!;
  const map = readSystemMap(new TextDecoder().decode(image("System.map-686").bytes), "System.map");
  assertEquals([map.size, map.address("schedule")], [table.size, table.address("schedule")]);
  assertEquals(table.address("startup_32"), 0xc1000000n);
});

const NEEDED = ["vmlinuz-686", "tiny-i386.cpio.gz"];

guestTest("loadGuest() says how much memory the 686 kernel needs", NEEDED, async () => {
  const kernel = image("vmlinuz-686"), ramdisk = image("tiny-i386.cpio.gz");
  const load = (mb: number) => loadGuest({ memory: new TestMemory(mb * MB), kernel, ramdisk });
  const { entry, boot } = await load(64);
  assertEquals([boot, entry.rip], ["bzImage", 0x1000000n]);
  const error = await assertRejects(() => load(32), BuilderError, "memory is 32 MB");
  const least = Number(/at least (\d+) MB/.exec(error.message)?.[1]);
  await load(least);
});

guestTest("loadGuest() tells a cut-off kernel and ramdisk", NEEDED, async () => {
  const kernel = image("vmlinuz-686"), ramdisk = image("tiny-i386.cpio.gz");
  const memory = new TestMemory(64 * MB);
  const cut = (file: { file: string; bytes: Uint8Array }) => ({
    file: file.file,
    bytes: file.bytes.subarray(0, file.bytes.length * 0.7),
  });
  await assertRejects(
    () => loadGuest({ memory, kernel: cut(kernel), ramdisk }),
    BuilderError,
    "bytes (cut off?)",
  );
  await assertRejects(
    () => loadGuest({ memory, kernel, ramdisk: cut(ramdisk) }),
    BuilderError,
    "tiny-i386.cpio.gz: gzip data is cut off",
  );
});

for (const name of ["686-pae", "cloud"]) {
  guestTest(`vmlinux-${name} is entered by its PVH note`, [`vmlinux-${name}`], async () => {
    const kernel = image(`vmlinux-${name}`);
    const loaded = await loadGuest({ memory: new TestMemory(96 * MB), kernel });
    const notes = readXenNotes(readElf(kernel.bytes, name))!;
    assertEquals([notes.guestOs, notes.loader], ["linux", "generic"]);
    assertEquals([loaded.boot, loaded.entry.rip], ["pvh", notes.phys32Entry!]);
  });
}
