/** Files that end too early: each kind of kernel and ramdisk, cut at every length. */
import { sizeOf, View } from "../abi/layout.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { crc32, gzipSync, zstdCompressSync } from "node:zlib";
import { PE } from "../abi/boot/pe.ts";
import { ELF_HEADER, ELF_SECTION } from "../abi/boot/elf.ts";
import { compressionOf } from "./compressed.ts";
import { readElf } from "./elf.ts";
import { BuilderError } from "./errors.ts";
import type { GuestType } from "../abi/boot/images.ts";
import { loadGuest } from "./images.ts";
import { checkRamdisk } from "./ramdisk.ts";
import { le32, multibootHeader, note, TestMemory, tinyBzImage, tinyElf } from "./testing.ts";

const MB = 1 << 20;
const noise = (length: number) => new Uint8Array(length).map((_, i) => i * i * 31 >> 3);

/** A bzImage with a PE header and certificates behind it. */
function signed(): Uint8Array {
  const image = tinyBzImage();
  const whole = new Uint8Array(image.length + 300);
  whole.set(image);
  const view = new DataView(whole.buffer);
  view.setUint16(0, PE.dosMagic, true);
  view.setUint32(PE.headerAt, 0x40, true);
  view.setUint32(0x40, PE.magic, true);
  view.setUint16(0x40 + PE.optional, PE.wide, true);
  view.setUint32(0x40 + PE.optional + PE.certificates64, image.length, true);
  view.setUint32(0x40 + PE.optional + PE.certificates64 + 4, 300, true);
  return whole;
}

/** The file with a symbol table's section and the section headers behind it, as linkers write them. */
function withSections(elf: Uint8Array): Uint8Array {
  const width = elf[4] === 2 ? 64 : 32, each = sizeOf(ELF_SECTION, width);
  const whole = new Uint8Array(elf.length + 48 + 2 * each);
  whole.set(elf);
  const shoff = elf.length + 48;
  new View(ELF_HEADER, width, whole)
    .setAll({ shoff, shnum: 2, shentsize: each, shstrndx: 0 });
  new View(ELF_SECTION, width, whole, shoff + each)
    .setAll({ type: 2, offset: elf.length, size: 48 });
  return whole;
}

const headed = new Uint8Array(256);
headed.set(multibootHeader());
const flat = new Uint8Array(512).fill(0x90);
flat.set(multibootHeader(0x200000, 4096));
new DataView(flat.buffer).setUint32(20, 0x200000 + 512, true); // load_end_addr
const rom = new Uint8Array(0x10000);
rom[0xfff0] = 0xea;
const pvh = tinyElf({ notes: note("Xen", 18, le32(0x100010)) });

const KERNELS: Readonly<Record<string, readonly [GuestType, Uint8Array]>> = {
  "a bzImage": ["hvm", tinyBzImage()],
  "a signed bzImage": ["hvm", signed()],
  "a 32-bit ELF": ["hvm", withSections(tinyElf({}))],
  "a 64-bit ELF": ["hvm", withSections(tinyElf({ bits: 64 }))],
  "a PVH kernel": ["pvh", withSections(pvh)],
  "a multiboot ELF": [
    "hvm",
    withSections(tinyElf({ entry: 0x400020, segments: [{ paddr: 0x400000, bytes: headed }] })),
  ],
  "a multiboot image by its address fields": ["hvm", flat],
  "a ROM": ["hvm", rom],
  "a gzipped ELF": ["hvm", new Uint8Array(gzipSync(tinyElf({})))],
  "a gzipped bzImage": ["hvm", new Uint8Array(gzipSync(tinyBzImage(noise(1008))))],
  "an ELF in zstd": ["hvm", new Uint8Array(zstdCompressSync(tinyElf({})))],
};

for (const [what, [type, bytes]] of Object.entries(KERNELS)) {
  Deno.test(`${what} is refused at every length but its own`, async () => {
    const memory = new TestMemory(16 * MB);
    const load = (length: number) =>
      loadGuest({ memory, kernel: { file: "k", bytes: bytes.subarray(0, length) }, type });
    await load(bytes.length);
    const step = bytes.length > 20000 ? 997 : 1;
    for (let length = 0; length < bytes.length; length += step) {
      await assertRejects(() => load(length), BuilderError, "k: ", `${length} of ${bytes.length}`);
    }
    await assertRejects(() => load(bytes.length - 1), BuilderError);
  });
}

/** XZ's outer parts around something: header and footer are what is looked at. */
function framedXz(): Uint8Array {
  const footer = [...le32(3), 0, 1];
  return new Uint8Array([
    ...[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 1],
    ...noise(500),
    ...le32(crc32(Uint8Array.from(footer))),
    ...footer,
    0x59,
    0x5a,
  ]);
}

const record = (name: string, size: number) => {
  const head = ["070701", ...new Array(6).fill("00000000"), size.toString(16).padStart(8, "0")];
  head.push(...new Array(4).fill("00000000"), (name.length + 1).toString(16).padStart(8, "0"));
  const text = `${head.join("")}00000000${name}\0`;
  const padded = text.padEnd(Math.ceil(text.length / 4) * 4, "\0");
  return `${padded}${"x".repeat(size)}`;
};
const cpio = new TextEncoder().encode(record("file", 8) + record("TRAILER!!!", 0));
const lz4 = Uint8Array.from([...le32(0x184c2102, 200), ...noise(200)]);
const RAMDISKS: Readonly<Record<string, Uint8Array>> = {
  "cpio": cpio,
  "cpio and gzip": Uint8Array.from([...cpio, 0, 0, 0, 0, ...gzipSync(noise(500))]),
  "gzip": new Uint8Array(gzipSync(noise(500))),
  "zstd": new Uint8Array(zstdCompressSync(noise(500))),
  "xz": framedXz(),
  "lz4": lz4,
  // noise(120), by bzip2.
  "bzip2": Uint8Array.fromBase64(
    "QlpoOTFBWSZTWeH9QsQAAAB//+rByIEci4RpAYeY9cDJo8nMGSIJgSVI04ihBYlqmZjFIAB0OAAAAAAAA0GQAADQDQ09QbagQ4aADTRoGg0NBkAGgBkNNMg0yA0ZAD1JrqYFyOj2nII3VOiKYsrEwqp1khkPxpHNeSUAI/cz29DVjFz298ByRJGD0Mr9oY7xdMkDvpQMFzL2ptDwEPqSWyREZxOOQgfETRGiGH2n7kgALjyMIwKnpIA6SST/i7kinChIcP6hYgA=",
  ),
};

for (const [what, bytes] of Object.entries(RAMDISKS)) {
  Deno.test(`a ramdisk in ${what} is refused at every length but its own`, () => {
    const check = (length: number) =>
      checkRamdisk({ file: "initrd", bytes: bytes.subarray(0, length) });
    check(bytes.length);
    for (let length = 0; length < bytes.length; length++) {
      // Zeroes behind an archive's end are nothing that is missing.
      if (what.startsWith("cpio") && length >= cpio.length - 3 && length <= cpio.length + 4) {
        continue;
      }
      assertThrows(() => check(length), BuilderError, "initrd: ", `${length} of ${bytes.length}`);
    }
  });
}

Deno.test("a file that is compressed in another way is refused by that way's name", async () => {
  const of = (...head: number[]) => Uint8Array.from([...head, ...noise(100)]);
  const named = {
    "lz4": of(0x02, 0x21, 0x4c, 0x18),
    "lz4 frame": of(0x04, 0x22, 0x4d, 0x18),
    "bzip2": of(0x42, 0x5a, 0x68),
    "lzma": of(0x5d, 0, 0),
    "lzo": of(0x89, 0x4c, 0x5a, 0x4f),
  };
  for (const [kind, bytes] of Object.entries(named)) {
    assertEquals(compressionOf(bytes), kind);
    for (const type of ["bare", "hvm", "pvh"] as const) {
      await assertRejects(
        () => loadGuest({ memory: new TestMemory(8 * MB), kernel: { file: "k", bytes }, type }),
        BuilderError,
        `k: kernel is ${kind} data; expected a kernel as it is, or in gzip, xz or zstd`,
      );
    }
  }
  // Where nothing is unpacked, as for symbols, the kind is named all the same.
  assertThrows(
    () => readElf(new Uint8Array(gzipSync(tinyElf({}))), "vmlinux.gz"),
    BuilderError,
    "vmlinux.gz: kernel is gzip data; expected an ELF file",
  );
});

Deno.test("a gzipped kernel is what is in it", async () => {
  const memory = new TestMemory(16 * MB);
  const kernel = (bytes: Uint8Array) => ({ file: "k.gz", bytes: new Uint8Array(gzipSync(bytes)) });
  assertEquals((await loadGuest({ memory, kernel: kernel(pvh) })).boot, "pvh");
  assertEquals((await loadGuest({ memory, kernel: kernel(flat) })).boot, "multiboot");
  assertEquals((await loadGuest({ memory, kernel: kernel(rom) })).boot, "rom");
  const loaded = await loadGuest({ memory, kernel: kernel(pvh), type: "pvh" });
  assert(loaded.entry.rip === 0x100010n);
});
