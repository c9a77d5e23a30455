// Boots a kernel in v86, headless: v86.ts FOLDER KERNEL RAMDISK CMDLINE MEMORY, where FOLDER holds the
// npm package. The console goes to standard output. The package ships no BIOS: Debian's seabios does.
// Runs under Node as well as under Deno.
import { readFileSync, writeSync } from "node:fs";
import process from "node:process";

const [folder, kernel, ramdisk, cmdline, memory] = process.argv.slice(2);
const { V86 } = await import(`file://${folder}/build/libv86.mjs`);
const BIOS = "/usr/share/seabios/";
const read = (path) => ({ buffer: new Uint8Array(readFileSync(path)).buffer });
const v86 = new V86({
  wasm_path: `${folder}/build/v86.wasm`,
  bios: read(`${BIOS}bios.bin`),
  vga_bios: read(`${BIOS}vgabios-stdvga.bin`),
  bzimage: read(kernel),
  initrd: read(ramdisk),
  cmdline,
  memory_size: Number(memory),
  vga_memory_size: 2 << 20,
  autostart: true,
  disable_keyboard: true,
  disable_mouse: true,
  disable_speaker: true,
});
v86.add_listener("serial0-output-byte", (byte) => writeSync(1, Uint8Array.of(byte)));
