import { assert } from "@std/assert";
import { gzipSync } from "node:zlib";
import { BuilderError } from "./errors.ts";
import type { BootName } from "../abi/boot/images.ts";
import { LOADERS, loadGuest } from "./images.ts";
import { readElf } from "./elf.ts";
import { extractPayload } from "./payload.ts";
import { readElfSymbols } from "./symbols.ts";
import { le32, multibootHeader, note, TestMemory, tinyBzImage, tinyElf } from "./testing.ts";
import { readXenNotes } from "./xen_notes.ts";

const MB = 1 << 20;

/** A seeded generator (xorshift32): a failure prints its round and can be run again. */
function generator(seed: number): (below: number) => number {
  let x = seed;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

const INTERESTING = [0, 1, 0x7f, 0x80, 0xff];

/** A copy with up to 8 bytes or words changed in its first `reach` bytes, sometimes cut off. */
function corrupt(image: Uint8Array, next: (below: number) => number, reach: number): Uint8Array {
  const copy = image.slice();
  const view = new DataView(copy.buffer);
  for (let n = next(8); n >= 0; n--) {
    const at = next(Math.min(reach, copy.length - 8));
    const kind = next(4);
    if (kind === 0) copy[at] ^= 1 << next(8);
    else if (kind === 1) copy[at] = INTERESTING[next(INTERESTING.length)];
    else if (kind === 2) view.setUint32(at, next(2 ** 32 - 1), true);
    else view.setUint32(at, next(2) ? 0xffffffff - next(16) : next(1 << 24), true);
  }
  return next(10) === 0 ? copy.subarray(0, next(copy.length)) : copy;
}

const segment = { paddr: 0x400000, bytes: new Uint8Array(256) };
segment.bytes.set(multibootHeader());
const flat = new Uint8Array(512).fill(0x90);
flat.set(multibootHeader(0x200000, 4096));
const notes = note("Xen", 18, le32(0x100010));

/** Each kind of kernel, and how many of its bytes are headers. */
const KERNELS: readonly [BootName, Uint8Array, number][] = [
  ["bzImage", tinyBzImage(), 0x26c],
  ["vmlinux", tinyElf({}), 200],
  ["vmlinux", tinyElf({ bits: 64 }), 250],
  ["pvh", tinyElf({ notes }), 250],
  ["multiboot", tinyElf({ entry: 0x400020, segments: [segment] }), 200],
  ["multiboot", flat, 40],
];
const ramdisk = new Uint8Array(gzipSync(new Uint8Array(3000).map((_, i) => i * 7)));

Deno.test("loadGuest() meets corrupt images with a BuilderError, and writes to RAM only", async () => {
  const next = generator(0x2026);
  // TestMemory itself throws a plain Error on a write outside RAM.
  const memory = new TestMemory(8 * MB);
  let loaded = 0, refused = 0;
  for (let round = 0; round < 1500; round++) {
    const [boot, image, reach] = KERNELS[round % KERNELS.length];
    const bytes = corrupt(image, next, reach);
    const disk = next(4) === 0 ? corrupt(ramdisk, next, ramdisk.length) : ramdisk;
    const options = {
      memory,
      kernel: { file: "kernel", bytes },
      ramdisk: { file: "initrd", bytes: disk },
      cmdline: "x".repeat(next(300)),
      acpi: {},
    };
    // By what the file is, or by a loader for what it was.
    const load = next(3) === 0 ? loadGuest : LOADERS[boot];
    try {
      await load(options);
      loaded++;
    } catch (error) {
      if (!(error instanceof BuilderError)) {
        throw new Error(`round ${round}: ${boot}`, { cause: error });
      }
      refused++;
    }
  }
  // Both must happen often, or this test looks at nothing.
  assert(loaded > 100 && refused > 300, `loaded ${loaded}, refused ${refused}`);
});

Deno.test("readElf(), notes, symbols and payloads never throw anything but BuilderError", async () => {
  const next = generator(7);
  const elf = tinyElf({ notes });
  const packed = new Uint8Array(gzipSync(tinyElf({})));
  const code = new Uint8Array(1024 + packed.length);
  code.set(packed, 1024);
  const image = tinyBzImage(code, { payload_offset: 1024, payload_length: packed.length });
  await extractPayload(image, "kernel");
  const trials = [
    () => {
      const read = readElf(corrupt(elf, next, elf.length), "elf");
      readXenNotes(read);
      readElfSymbols(read);
    },
    () => extractPayload(corrupt(image, next, image.length), "kernel"),
  ];
  for (let round = 0; round < 2000; round++) {
    try {
      await trials[round % 2]();
    } catch (error) {
      if (!(error instanceof BuilderError)) throw new Error(`round ${round}`, { cause: error });
    }
  }
});
