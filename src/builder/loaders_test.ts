import { type FieldValues, fixed } from "../abi/layout.ts";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { gzipSync } from "node:zlib";
import { BOOT_PARAMS, SETUP_HEADER } from "../abi/boot/boot_params.ts";
import { type BootName, type ImageName, IMAGES } from "../abi/boot/images.ts";
import {
  HVM_MODLIST_ENTRY,
  HVM_START_INFO,
  XEN_HVM_START_MAGIC_VALUE,
} from "../abi/xen/hvm/start_info.ts";
import { MULTIBOOT_INFO, MULTIBOOT_MODULE } from "../abi/boot/multiboot.ts";
import { loadBzImage } from "./bzimage.ts";
import { e820, encodeE820 } from "./e820.ts";
import { BuilderError } from "./errors.ts";
import { imageTables } from "./image_list.ts";
import { detect, loadGuest } from "./images.ts";
import { loadMultiboot } from "./multiboot.ts";
import { loadPvh } from "./pvh.ts";
import { checkRamdisk } from "./ramdisk.ts";
import { loadRom } from "./rom.ts";
import { le32, multibootHeader, note, TestMemory, tinyBzImage, tinyElf } from "./testing.ts";
import { loadVmlinux } from "./vmlinux.ts";

const MB = 1 << 20;
const named = (bytes: Uint8Array, file = "kernel") => ({ file, bytes });
const ramdisk = named(new Uint8Array(gzipSync(new Uint8Array(5000).fill(7))), "initrd");
const padded = named(new Uint8Array([...ramdisk.bytes, ...new Uint8Array(64)]), "initrd");

Deno.test("e820() leaves out video memory, firmware and the APICs, and ends at the memory's size", () => {
  const map = e820(64 * MB);
  assertEquals(map.filter((r) => r.type === "ram"), [
    { base: 0, length: 0x9fc00, type: "ram" },
    { base: MB, length: 63 * MB, type: "ram" },
  ]);
  const big = e820(5 * 1024 * MB).filter((r) => r.type === "ram");
  assertEquals(big.reduce((n, r) => n + r.length, 0), 5 * 1024 * MB - (MB - 0x9fc00));
  assertEquals(big.at(-1), { base: 2 ** 32, length: 2048 * MB, type: "ram" });
  assertThrows(() => e820(4095), BuilderError, "expected a multiple of 4 KB, at least 2 MB");
});

Deno.test("loadBzImage() sets up boot_params, command line and ramdisk for the 32-bit protocol", () => {
  const memory = new TestMemory(16 * MB);
  const code = new Uint8Array(4096).map((_, i) => i);
  const loaded = loadBzImage({
    memory,
    kernel: named(tinyBzImage(code)),
    ramdisk: padded,
    cmdline: "console=ttyS0",
    rsdp: 0xe0000,
  });
  const { entry } = loaded;
  assertEquals([entry.mode, entry.rip, entry.cr0 & 0x80000001n], ["protected32", 0x100000n, 1n]);
  assertEquals(memory.read(0x100000, 4096), code);
  const page = memory.read(Number(entry.regs.rsi), 4096);
  const header = fixed(SETUP_HEADER, page), params = fixed(BOOT_PARAMS, page);
  assertEquals(memory.text(header.get("cmd_line_ptr")), "console=ttyS0");
  assertEquals(header.get("ramdisk_size"), padded.bytes.length);
  assertEquals(memory.read(header.get("ramdisk_image"), padded.bytes.length), padded.bytes);
  assertEquals([header.get("version"), header.get("type_of_loader")], [0x20f, 0xff]);
  assertEquals(params.get("acpi_rsdp_addr"), 0xe0000n);
  assertEquals([params.get("orig_video_cols"), params.get("orig_video_lines")], [80, 25]);
  assertEquals(params.get("e820_entries"), loaded.e820.length);
  assertEquals(page.slice(0x2d0, 0x2d0 + loaded.e820.length * 20), encodeE820(loaded.e820));
  assertEquals(loaded.entry64?.rip, 0x100200n);
});

Deno.test("loadBzImage() keeps the ramdisk below initrd_addr_max", () => {
  const memory = new TestMemory(16 * MB);
  const kernel = named(tinyBzImage(undefined, { initrd_addr_max: 0x2fffff }));
  const loaded = loadBzImage({ memory, kernel, ramdisk: padded });
  const region = loaded.regions.find((r) => r.what === "ramdisk")!;
  assert(region.end <= 0x300000 && region.start >= 0x108000);
});

Deno.test("loadBzImage() names the field that is wrong", () => {
  const memory = new TestMemory(16 * MB);
  const load = (image: Uint8Array) => () => loadBzImage({ memory, kernel: named(image) });
  const cases: [FieldValues<typeof SETUP_HEADER["fields"]>, string][] = [
    [{ boot_flag: 0 }, "boot_flag is 0x0; expected 0xaa55"],
    [{ header: 1 }, "header magic is 0x1"],
    [{ version: 0x201 }, "version (boot protocol) is 0x201"],
    [{ loadflags: 0 }, "loadflags is 0x0"],
    [{ setup_sects: 200 }, "setup_sects is 0xc8"],
    [{ syssize: 0x1000 }, "cut off?"],
    [{ kernel_alignment: 3 }, "kernel_alignment is 0x3"],
    [{ pref_address: 0x1000 }, "pref_address is 0x1000"],
    [{ init_size: 12 }, "init_size is 0xc"],
    [{ jump: 0xffeb }, "jump (length of the setup header)"],
  ];
  for (const [fields, message] of cases) {
    assertThrows(load(tinyBzImage(undefined, fields)), BuilderError, message);
  }
  assertThrows(load(tinyBzImage().subarray(0, 3000)), BuilderError, "3,000 bytes (cut off?)");
});

Deno.test("an image of multiboot 2 alone is refused with what it is, whatever the file", async () => {
  const magic = 0xe85250d6, tags = [0, 0, 8, 0];
  const header = [magic, 0, 24, -(magic + 24) >>> 0].flatMap((word) => [...le32(word)]);
  const bytes = Uint8Array.of(...header, ...tags, 0, 0, 0, 0);
  const at = (place: number, size: number) => {
    const image = new Uint8Array(size);
    image.set(bytes, place);
    return image;
  };
  const rom = at(0x40, 0x10000);
  rom[0xfff0] = 0xea;
  // Behind its headers of 84 bytes.
  const segments = [{ paddr: 0x100000, bytes: at(4, 64) }];
  const images = [at(0, 64), at(0x7fe0, 0x9000), rom, tinyElf({ segments })];
  const load = (image: Uint8Array, type?: "pvh") =>
    loadGuest({ memory: new TestMemory(16 * MB), kernel: named(image), type });
  for (const image of images) {
    const { message } = await assertRejects(() => load(image), BuilderError);
    assertStringIncludes(message, "kernel is a multiboot 2 image");
    assertStringIncludes(message, "expected a multiboot 1 header (0x1badb002), a PVH note");
    const asked = await assertRejects(() => load(image, "pvh"), BuilderError);
    assertStringIncludes(asked.message, "image; expected a bzImage or an ELF with a PVH note");
  }
  // Off its boundary, too far behind, or with another sum it is none.
  for (const image of [at(4, 64), at(0x8000, 0x9000)]) {
    const { message } = await assertRejects(() => load(image), BuilderError);
    assertStringIncludes(message, "or a ROM of 64 or 128 KB");
    assert(!message.includes("multiboot 2"), message);
  }
});

Deno.test("loadBzImage() says how much memory is needed", () => {
  const kernel = named(tinyBzImage(undefined, { init_size: 30 * MB }));
  const load = (mb: number) => loadBzImage({ memory: new TestMemory(mb * MB), kernel });
  const error = assertThrows(() => load(16), BuilderError, "memory is 16 MB");
  assertStringIncludes(error.message, "at least 31 MB");
  load(31);
});

Deno.test("loadBzImage() refuses a command line the kernel would cut", () => {
  const options = { memory: new TestMemory(16 * MB), kernel: named(tinyBzImage()) };
  const load = (cmdline: string) => loadBzImage({ ...options, cmdline });
  load("x".repeat(255));
  assertThrows(() => load("x".repeat(256)), BuilderError, "256 bytes long; expected at most 255");
});

Deno.test("loadPvh() passes memory map, command line and module in hvm_start_info", () => {
  const memory = new TestMemory(16 * MB);
  const notes = note("Xen", 18, le32(0x100010));
  const kernel = named(tinyElf({ notes }));
  const { entry, e820: map } = loadPvh({
    memory,
    kernel,
    ramdisk: padded,
    cmdline: "quiet",
    rsdp: 0xe0000,
  });
  assertEquals([entry.mode, entry.rip], ["protected32", 0x100010n]);
  const info = fixed(HVM_START_INFO, memory.read(Number(entry.regs.rbx), 56));
  assertEquals([info.get("magic"), info.get("version")], [XEN_HVM_START_MAGIC_VALUE, 1]);
  assertEquals([info.get("nr_modules"), info.get("memmap_entries")], [1, map.length]);
  assertEquals(info.get("rsdp_paddr"), 0xe0000n);
  assertEquals(memory.text(Number(info.get("cmdline_paddr"))), "quiet");
  const module = fixed(HVM_MODLIST_ENTRY, memory.read(Number(info.get("modlist_paddr")), 32));
  assertEquals(memory.read(Number(module.get("paddr")), Number(module.get("size"))), padded.bytes);
});

Deno.test("loadPvh() refuses a kernel without the note, and an entry outside its segments", () => {
  const memory = new TestMemory(16 * MB);
  const load = (notes?: Uint8Array) => () => loadPvh({ memory, kernel: named(tinyElf({ notes })) });
  assertThrows(load(), BuilderError, "PVH note (Xen, 18) is absent");
  assertThrows(load(note("Xen", 18, le32(0x200000))), BuilderError, "PVH entry is 0x200000");
});

Deno.test("loadVmlinux() enters 32-bit kernels flat and 64-bit ones over identity tables", () => {
  const memory = new TestMemory(16 * MB);
  const small = loadVmlinux({ memory, kernel: named(tinyElf({})) });
  assertEquals([small.entry.mode, small.entry.rip], ["protected32", 0x100000n]);
  const { entry } = loadVmlinux({
    memory: new TestMemory(16 * MB),
    kernel: named(tinyElf({ bits: 64 })),
  });
  assertEquals([entry.mode, entry.efer, entry.cr4], ["long64", 0x500n, 0x20n]);
});

Deno.test("loadVmlinux() zeroes what a segment's memory size adds to its bytes", () => {
  const memory = new TestMemory(16 * MB);
  memory.bytes.fill(0xcc, MB, 2 * MB);
  const bytes = new Uint8Array(64).fill(0x90);
  const segments = [{ paddr: MB, bytes, memsz: 0x20000 }];
  loadVmlinux({ memory, kernel: named(tinyElf({ segments })) });
  assert(memory.read(MB + 64, 0x20000 - 64).every((b) => b === 0));
  assertEquals(memory.bytes[MB + 0x20000], 0xcc);
});

Deno.test("loadVmlinux() says how much memory a segment needs, and refuses overlaps", () => {
  const load = (...at: number[]) => () =>
    loadVmlinux({
      memory: new TestMemory(4 * MB),
      kernel: named(tinyElf({
        entry: at[0],
        segments: at.map((paddr) => ({ paddr, bytes: new Uint8Array(4096) })),
      })),
    });
  assertThrows(load(20 * MB), BuilderError, "at least 21 MB of memory");
  assertThrows(load(MB, MB + 100), BuilderError, "expected a place of its own");
  assertThrows(load(0xb8000), BuilderError, "expected a range of RAM");
});

Deno.test("loadMultiboot() hands over magic, map, command line and module", () => {
  const memory = new TestMemory(16 * MB);
  const bytes = new Uint8Array(128);
  bytes.set(multibootHeader());
  const kernel = named(
    tinyElf({ entry: 0x400020, segments: [{ paddr: 0x400000, bytes }] }),
    "t.flat",
  );
  const { entry } = loadMultiboot({ memory, kernel, ramdisk: padded, cmdline: "a b" });
  assertEquals([entry.rip, entry.regs.rax], [0x400020n, 0x2badb002n]);
  const info = fixed(MULTIBOOT_INFO, memory.read(Number(entry.regs.rbx), 116));
  assertEquals(memory.text(info.get("cmdline")), "t.flat a b");
  assertEquals([info.get("mem_lower"), info.get("mem_upper")], [639, 15 * 1024]);
  assertEquals(info.get("mmap_length"), e820(16 * MB).length * 24);
  assertEquals(info.get("mods_count"), 1);
  const module = fixed(MULTIBOOT_MODULE, memory.read(info.get("mods_addr"), 16));
  const size = module.get("mod_end") - module.get("mod_start");
  assertEquals(memory.read(module.get("mod_start"), size), padded.bytes);
});

Deno.test("loadMultiboot() follows the header's address fields", () => {
  const memory = new TestMemory(16 * MB);
  const bytes = new Uint8Array(100).fill(0x90);
  bytes.set(multibootHeader(0x200000, 4096));
  const { entry, regions } = loadMultiboot({ memory, kernel: named(bytes) });
  assertEquals(entry.rip, 0x200020n);
  assertEquals(regions[0], { what: "kernel", start: 0x200000, end: 0x201000 });
  assertEquals(memory.read(0x200000, 100), bytes);
});

Deno.test("loadRom() enters a ROM at reset", () => {
  const memory = new TestMemory(16 * MB);
  const boot = named(new Uint8Array(512).fill(0xf4));
  const rom = loadRom({ memory, kernel: named(new Uint8Array(0x10000).fill(1)) });
  assertEquals([rom.entry.segments.cs.base, rom.entry.rip], [0xffff0000n, 0xfff0n]);
  assertEquals(rom.aliases, [{ start: 0xffff0000, end: 2 ** 32, target: 0xf0000 }]);
  assertEquals(memory.bytes[0xfffff], 1);
  assertThrows(() => loadRom({ memory, kernel: boot }), BuilderError, "ROM size is 512 bytes");
});

Deno.test("checkRamdisk() takes whole archives and refuses what is cut off", () => {
  checkRamdisk(padded);
  const check = (bytes: Uint8Array) => () => checkRamdisk(named(bytes, "initrd"));
  const random = new Uint8Array(5000).map((_, i) => i * i * 31 >> 3);
  const whole = new Uint8Array(gzipSync(random));
  checkRamdisk(named(whole));
  assertThrows(check(whole.subarray(0, whole.length - 40)), BuilderError, "cut off after");
  const flipped = whole.slice();
  flipped[whole.length >> 1] ^= 0x10;
  assertThrows(check(flipped), BuilderError, "gzip data is corrupt");
  assertThrows(check(new Uint8Array(10)), BuilderError, "10 bytes long");
  assertThrows(check(new Uint8Array(100).fill(0x41)), BuilderError, "41 41 41 41");
  const cpio = new TextEncoder().encode("070701".padEnd(200, "0"));
  assertThrows(check(cpio), BuilderError, "no header");
});

const jump = new Uint8Array(0x10000);
jump[0xfff0] = 0xea;
const headed = new Uint8Array(128);
headed.set(multibootHeader());
const noted = note("Xen", 18, le32(0x100010));
const packed = new Uint8Array(gzipSync(tinyElf({ notes: noted })));
const holder = new Uint8Array(Math.ceil((1024 + packed.length) / 16) * 16);
holder.set(packed, 1024);
const payload = { payload_offset: 1024, payload_length: packed.length };
const atMegabyte = { segments: [{ paddr: MB, bytes: headed }] };

/** A file of each kind, how it boots on a PC and as pvh, and how it is entered. */
const FILES: readonly [ImageName, Uint8Array, BootName, BootName | null, string, bigint][] = [
  ["bzImage", tinyBzImage(holder, payload), "bzImage", "pvh", "protected32", 0x100000n],
  ["multiboot", tinyElf(atMegabyte), "multiboot", null, "protected32", 0x100000n],
  ["pvh", tinyElf({ notes: noted }), "pvh", "pvh", "protected32", 0x100010n],
  ["elf", tinyElf({}), "vmlinux", null, "protected32", 0x100000n],
  ["elf", tinyElf({ bits: 64 }), "vmlinux", null, "long64", 0x100000n],
  ["rom", jump, "rom", null, "real", 0xfff0n],
];

Deno.test("each kind of image boots in the types that its row names, and in no other", async () => {
  const memory = () => new TestMemory(16 * MB);
  for (const [image, bytes, boot, pvh, mode, rip] of FILES) {
    const kernel = named(bytes);
    for (const type of ["bare", "hvm"] as const) {
      assertEquals(detect(kernel, type), { image, boot });
      const { entry, ...loaded } = await loadGuest({ memory: memory(), kernel, type });
      assertEquals([loaded.boot, entry.mode, entry.rip], [boot, mode, rip]);
    }
    if (pvh) {
      const { entry } = await loadGuest({ memory: memory(), kernel, type: "pvh" });
      assertEquals([detect(kernel, "pvh").boot, entry.rip], [pvh, 0x100010n]);
      continue;
    }
    await assertRejects(
      () => loadGuest({ memory: memory(), kernel, type: "pvh" }),
      BuilderError,
      `kernel is ${IMAGES[image].text}; expected a bzImage or an ELF with a PVH note`,
    );
  }
  // One that is of two kinds: each type takes what it can enter.
  const both = named(tinyElf({ notes: noted, ...atMegabyte }));
  assertEquals(detect(both, "hvm"), { image: "multiboot", boot: "multiboot" });
  assertEquals(detect(both, "pvh"), { image: "pvh", boot: "pvh" });
});

Deno.test("the README has the tables of images and of ways to enter them", () => {
  const readme = Deno.readTextFileSync(new URL("../../README.md", import.meta.url));
  const plain = (text: string) => text.replace(/-+/g, "-").replace(/ +/g, " ");
  for (const table of imageTables().split("\n\n")) {
    assertStringIncludes(plain(readme), plain(table));
  }
});

Deno.test("loadGuest() says what a file is that is no kernel", async () => {
  const memory = new TestMemory(16 * MB);
  const text = named(new TextEncoder().encode("#!/bin/sh\necho not a kernel\n"), "script");
  await assertRejects(
    () => loadGuest({ memory, kernel: text }),
    BuilderError,
    "script: kernel is a file that begins with 23 21 2f 62; expected a bzImage",
  );
  await assertRejects(
    () => loadGuest({ memory, kernel: named(new Uint8Array()) }),
    BuilderError,
    "empty",
  );
  const loaded = await loadGuest({ memory, kernel: named(tinyBzImage()), acpi: {} });
  assert(loaded.regions.some((r) => r.what === "ACPI RSDP"));
});

Deno.test("loadMultiboot() enters an ELF that is linked high and loaded low at the physical address", () => {
  const code = new Uint8Array(128);
  code.set(multibootHeader());
  const linked = (entry: number, vaddr: number, filesz = 128) =>
    named(tinyElf({
      entry,
      segments: [{ paddr: 0x300000, vaddr, bytes: code.subarray(0, filesz), memsz: 256 }],
    }));
  const enter = (kernel: { file: string; bytes: Uint8Array }) =>
    loadMultiboot({ memory: new TestMemory(16 * MB), kernel }).entry.rip;
  assertEquals(enter(linked(0xc0300020, 0xc0300000)), 0x300020n);
  // By either address; the virtual one is looked for first.
  assertEquals(enter(linked(0x300020, 0xc0300000)), 0x300020n);
  assertEquals(enter(linked(0x300040, 0x300020)), 0x300020n);
  assertThrows(
    () => enter(linked(0xd0300000, 0xc0300000)),
    BuilderError,
    "ELF entry is 0xd0300000; expected an address in a loaded segment's bytes",
  );
  // Beyond the file's bytes there is nothing to run.
  assertThrows(
    () => enter(linked(0xc03000c0, 0xc0300000)),
    BuilderError,
    "ELF entry is 0xc03000c0",
  );
  const { entry } = loadVmlinux({
    memory: new TestMemory(16 * MB),
    kernel: linked(0xc0300020, 0xc0300000),
  });
  assertEquals(entry.rip, 0x300020n);
});

Deno.test("multiboot and PVH kernels get every module with its text, others refuse them", async () => {
  const modules = [
    {
      ...named(new Uint8Array(5000).fill(1), "/path to/dom0 kernel"),
      cmdline: "console=hvc0 quiet",
    },
    named(new Uint8Array(100).fill(2), "initrd"),
  ];
  const memory = new TestMemory(16 * MB);
  const bytes = new Uint8Array(100).fill(0x90);
  bytes.set(multibootHeader(0x200000, 4096));
  const { entry } = loadMultiboot({ memory, kernel: named(bytes), ramdisk: padded, modules });
  const info = fixed(MULTIBOOT_INFO, memory.read(Number(entry.regs.rbx), 116));
  assertEquals(info.get("mods_count"), 3);
  const seen = [0, 1, 2].map((n) => {
    const m = fixed(MULTIBOOT_MODULE, memory.read(info.get("mods_addr") + 16 * n, 16));
    const [start, end] = [m.get("mod_start"), m.get("mod_end")];
    assertEquals(start % 4096, 0);
    return [memory.text(m.get("string")), end - start, memory.bytes[start]];
  });
  assertEquals(seen, [
    ["initrd", padded.bytes.length, padded.bytes[0]],
    ["dom0_kernel console=hvc0 quiet", 5000, 1],
    ["initrd", 100, 2],
  ]);
  const pvh = named(tinyElf({ notes: note("Xen", 18, le32(0x100000)) }));
  const other = new TestMemory(16 * MB);
  const loaded = loadPvh({ memory: other, kernel: pvh, modules });
  const start = fixed(HVM_START_INFO, other.read(Number(loaded.entry.regs.rbx), 56));
  assertEquals(start.get("nr_modules"), 2);
  const at = Number(start.get("modlist_paddr"));
  const list = [0, 1].map((n) => fixed(HVM_MODLIST_ENTRY, other.read(at + 32 * n, 32)));
  assertEquals(list.map((m) => [Number(m.get("size")), other.bytes[Number(m.get("paddr"))]]), [[
    5000,
    1,
  ], [
    100,
    2,
  ]]);
  assertEquals(other.text(Number(list[0].get("cmdline_paddr"))), "console=hvc0 quiet");
  assertEquals(list[1].get("cmdline_paddr"), 0n);
  const load = (kernel: Uint8Array, given: object) =>
    loadGuest({ memory: new TestMemory(16 * MB), kernel: named(kernel), ...given });
  const takers = "a kernel that is entered by multiboot or pvh takes it";
  for (const [boot, kernel] of [["bzImage", tinyBzImage()], ["vmlinux", tinyElf({})]] as const) {
    await assertRejects(
      () => load(kernel, { modules }),
      BuilderError,
      `kernel: modules is 2 files; expected none: it is entered by ${boot}; ${takers}`,
    );
  }
  await assertRejects(() => load(jump, { ramdisk: padded }), BuilderError, "ramdisk is initrd; ");
  await assertRejects(() => load(jump, { cmdline: "a" }), BuilderError, `cmdline is "a"; `);
  await load(jump, { cmdline: "", modules: [] });
});
