import { assertEquals, assertThrows } from "@std/assert";
import { readElf } from "./elf.ts";
import { BuilderError } from "./errors.ts";
import { readElfSymbols, readSystemMap } from "./symbols.ts";
import { le32, note, tinyElf } from "./testing.ts";
import { readXenNotes } from "./xen_notes.ts";

const MAP = `c1000000 T _stext
c1000000 T startup_32
c1000040 t helper
c1000100 T schedule
c1000200 D jiffies
`;

Deno.test("readSystemMap() finds addresses by name and names by address", () => {
  const table = readSystemMap(MAP, "System.map");
  assertEquals(table.size, 5);
  assertEquals(table.address("schedule"), 0xc1000100n);
  assertEquals(table.address("nothing"), undefined);
  assertEquals(table.format(0xc1000000n), "_stext");
  assertEquals(table.format(0xc1000055n), "helper+0x15");
  assertEquals(table.format(0xbfffffffn), undefined);
  assertEquals(table.format(0xd1000000n), undefined);
  assertEquals(table.complete("s"), ["schedule", "startup_32"]);
});

Deno.test("readSystemMap() keeps 64-bit addresses exact", () => {
  const table = readSystemMap("ffffffff81000001 T low\nffffffff81000002 T high\n", "map");
  assertEquals(table.address("low"), 0xffffffff81000001n);
  assertEquals(table.format(0xffffffff81000003n), "high+0x1");
});

Deno.test("readSystemMap() refuses other text and the placeholder of Debian's packages", () => {
  const stub = "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package";
  assertThrows(() => readSystemMap(stub, "map"), BuilderError, "a real System.map");
  assertThrows(() => readSystemMap(MAP + "hello\n", "map"), BuilderError, `line 6 is "hello"`);
});

/** A 32-bit ELF with a symbol table: `main` at 0x100004 in section 1, and a file symbol. */
function withSymbols(): Uint8Array {
  const elf = tinyElf({});
  const names = new TextEncoder().encode("\0main\0a.c\0");
  const symbols = new Uint8Array([
    ...new Uint8Array(16),
    ...le32(1, 0x100004, 4),
    ...[0x12, 0, 1, 0],
    ...le32(6, 0, 0),
    ...[4, 0, 0xf1, 0xff],
  ]);
  const namesAt = elf.length, symbolsAt = namesAt + names.length;
  const sectionsAt = symbolsAt + symbols.length;
  const section = (type: number, offset: number, size: number, link: number) => [
    ...le32(0, type, 0, 0, offset, size, link, 0, 0, 0),
  ];
  const image = new Uint8Array([
    ...elf,
    ...names,
    ...symbols,
    ...section(0, 0, 0, 0),
    ...section(3, namesAt, names.length, 0),
    ...section(2, symbolsAt, symbols.length, 1),
  ]);
  const view = new DataView(image.buffer);
  view.setUint32(32, sectionsAt, true);
  view.setUint16(46, 40, true);
  view.setUint16(48, 3, true);
  return image;
}

Deno.test("readElfSymbols() reads names and values, and nothing from a stripped file", () => {
  const table = readElfSymbols(readElf(withSymbols(), "a.elf"))!;
  assertEquals([...table], [{ name: "main", address: 0x100004n }]);
  assertEquals(readElfSymbols(readElf(tinyElf({}), "b.elf")), undefined);
});

Deno.test("readXenNotes() reads ELF notes as words", () => {
  const text = (s: string) => new TextEncoder().encode(s + "\0");
  const parts = [
    note("Xen", 6, text("linux")),
    note("Xen", 3, le32(0xc0000000)),
    note("Xen", 10, text("!writable_page_tables|pae_pgdir_above_4gb")),
    note("Xen", 13, le32(1, 1)),
    note("Xen", 2, new Uint8Array(new BigUint64Array([0xffffffff81000000n]).buffer)),
    note("Linux", 18, le32(1)),
  ];
  const notes = new Uint8Array(parts.flatMap((p) => [...p]));
  assertEquals(readXenNotes(readElf(tinyElf({ notes }), "k")), {
    source: "notes",
    guestOs: "linux",
    virtBase: 0xc0000000n,
    features: ["!writable_page_tables", "pae_pgdir_above_4gb"],
    l1MfnValid: { mask: 1n, value: 1n },
    hypercallPage: 0xffffffff81000000n,
  });
  assertEquals(readXenNotes(readElf(tinyElf({}), "k")), undefined);
});
