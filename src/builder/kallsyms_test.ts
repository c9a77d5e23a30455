import { assertEquals } from "@std/assert";
import { readElf } from "./elf.ts";
import { kallsymsTable, readKallsyms, writeSystemMap } from "./kallsyms.ts";
import { readSystemMap } from "./symbols.ts";
import { tinyElf } from "./testing.ts";

const BASE = 0xc1000000;

/** A kernel's symbol tables as its build lays them out, for `count` functions 16 bytes apart. */
function kernel(count: number, order: "old" | "sequence" | "new"): Uint8Array {
  const out: number[] = [];
  const align = () => {
    while (out.length % 4) out.push(0);
  };
  const u32 = (value: number) =>
    out.push(value & 255, value >> 8 & 255, value >> 16 & 255, value >>> 24);
  const offsets = () => {
    align();
    for (let i = 0; i < count; i++) u32(i * 16);
    u32(BASE);
  };
  // Every character is its own token, but for code 1, which stands for "func".
  const tokens = Array.from(
    { length: 256 },
    (_, c) => c === 1 ? "func" : c > 32 && c < 127 ? String.fromCharCode(c) : "",
  );
  const names: number[] = [], markers: number[] = [];
  for (let i = 0; i < count; i++) {
    if (i % 256 === 0) markers.push(names.length);
    const codes = i === 0
      ? [..."T_text"].map((c) => c.charCodeAt(0))
      : [116, 1, ...[...`${i}`].map((c) => c.charCodeAt(0))];
    names.push(codes.length, ...codes);
  }
  u32(0x12345678);
  if (order !== "new") offsets();
  u32(count);
  out.push(...names);
  align();
  markers.forEach(u32);
  if (order === "sequence") {
    for (let i = 0; i < count; i++) out.push(i >> 16, i >> 8 & 255, i & 255);
  }
  align();
  const index: number[] = [];
  const start = out.length;
  for (const token of tokens) {
    index.push(out.length - start);
    out.push(...[...token].map((c) => c.charCodeAt(0)), 0);
  }
  align();
  index.forEach((offset) => out.push(offset & 255, offset >> 8));
  if (order === "new") offsets();
  u32(0xffffffff);
  return new Uint8Array(out);
}

// The tables stay aligned behind the headers of 84 bytes.
const elf = (bytes: Uint8Array) =>
  readElf(tinyElf({ segments: [{ paddr: 0x100000, bytes }] }), "vmlinux");

for (const order of ["old", "sequence", "new"] as const) {
  Deno.test(`readKallsyms() finds the tables in their ${order} order`, () => {
    const symbols = readKallsyms(elf(kernel(2500, order)))!;
    assertEquals(symbols.length, 2500);
    assertEquals(symbols[0], { type: "T", name: "_text", address: BigInt(BASE) });
    assertEquals(symbols[2499], {
      type: "t",
      name: "func2499",
      address: BigInt(BASE + 2499 * 16),
    });
    const map = readSystemMap(writeSystemMap(symbols, 32), "System.map");
    assertEquals(map.format(BigInt(BASE + 35)), "func2+0x3");
  });
}

Deno.test("readKallsyms() finds nothing where there is nothing, or where tables disagree", () => {
  assertEquals(readKallsyms(elf(new Uint8Array(5000))), undefined);
  const bytes = kernel(2500, "old");
  bytes[4 + 2500 * 4 + 4 + 4] ^= 0x55; // the first name's length
  assertEquals(kallsymsTable(elf(bytes)), undefined);
});
