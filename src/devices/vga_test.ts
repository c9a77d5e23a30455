import { assert, assertEquals } from "@std/assert";
import { checkSaveLoad, TestContext } from "./testing.ts";
import { Vga } from "./vga.ts";

function put(vga: Vga, column: number, row: number, text: string, attribute = 7): void {
  for (let i = 0; i < text.length; i++) {
    const at = 0xb8000 + (row * 80 + column + i) * 2;
    vga.mmioWrite(at, 1, text.charCodeAt(i));
    vga.mmioWrite(at + 1, 1, attribute);
  }
}
const crtc = (vga: Vga, index: number, value: number) => {
  vga.write(0x3d4, 1, index);
  vga.write(0x3d5, 1, value);
};

Deno.test("Vga starts blank in 80 x 25", () => {
  const vga = new Vga(new TestContext());
  assertEquals(vga.size, { columns: 80, rows: 25 });
  assertEquals(vga.text(), "");
  assertEquals(vga.cursor, { column: 0, row: 0 });
});

Deno.test("Vga shows text in code page 437", () => {
  const vga = new Vga(new TestContext());
  put(vga, 0, 0, "Linux");
  put(vga, 2, 2, "\xda\xc4\xbf \x9b \x01");
  put(vga, 75, 24, "right");
  assertEquals(vga.text().split("\n").slice(0, 3), ["Linux", "", "  ┌─┐ ¢ ☺"]);
  assertEquals(vga.text().split("\n")[24], " ".repeat(75) + "right");
  const all = Array.from({ length: 256 }, (_, i) => String.fromCharCode(i)).join("");
  put(vga, 0, 4, all);
  const shown = [...vga.text().split("\n").slice(4, 8).map((l) => l.padEnd(80)).join("")];
  assertEquals(shown.slice(0x41, 0x44).join(""), "ABC");
  assertEquals([shown[0x7f], shown[0x80], shown[0xdb], shown[0xfe]], ["⌂", "Ç", "█", "■"]);
});

Deno.test("Vga scrolls by its start address and wraps in its 32 KB", () => {
  const vga = new Vga(new TestContext());
  put(vga, 0, 1, "second line");
  crtc(vga, 13, 80);
  assertEquals(vga.text(), "second line");
  crtc(vga, 14, 0);
  crtc(vga, 15, 85);
  assertEquals(vga.cursor, { column: 5, row: 0 });
  crtc(vga, 10, 0x20);
  assertEquals(vga.cursor, undefined);
  crtc(vga, 12, 0x3f);
  crtc(vga, 13, 0xb0); // 80 cells before the end
  put(vga, 0, 0, "wrapped");
  assertEquals(vga.text().split("\n").slice(0, 3), ["", "wrapped", "second line"]);
});

Deno.test("Vga's picture has colours and the cursor", () => {
  const vga = new Vga(new TestContext());
  put(vga, 0, 0, "red", 0x4e);
  const [first] = vga.picture.split("\n");
  assert(first.startsWith("\x1b[0;7;93;41mr\x1b[0;93;41med\x1b[0;37;40m "), JSON.stringify(first));
  assertEquals(vga.picture.split("\n").length, 25);
});

Deno.test("Vga protects CRTC 0 to 7 and moves with the miscellaneous register", () => {
  const vga = new Vga(new TestContext());
  crtc(vga, 1, 0x27);
  assertEquals(vga.size.columns, 80);
  crtc(vga, 0x11, 0x0e);
  crtc(vga, 1, 0x27);
  assertEquals(vga.size.columns, 40);
  vga.write(0x3c2, 1, 0x66);
  assertEquals([vga.read(0x3d5, 1), vga.read(0x3b5, 1)], [0xff, 0x27]);
  assertEquals(vga.read(0x3cc, 1), 0x66);
});

Deno.test("Vga's attribute port alternates, and the status port sets it back", () => {
  const vga = new Vga(new TestContext());
  vga.read(0x3da, 1);
  vga.write(0x3c0, 1, 0x10);
  vga.write(0x3c0, 1, 0x08);
  vga.write(0x3c0, 1, 0x0f);
  vga.read(0x3da, 1);
  vga.write(0x3c0, 1, 0x10);
  assertEquals(vga.read(0x3c1, 1), 0x08);
});

Deno.test("Vga's palette is written and read in triples", () => {
  const vga = new Vga(new TestContext());
  vga.write(0x3c8, 1, 254);
  for (const part of [1, 2, 3, 0x7f, 5, 6]) vga.write(0x3c9, 1, part);
  vga.write(0x3c7, 1, 254);
  assertEquals(Array.from({ length: 6 }, () => vga.read(0x3c9, 1)), [1, 2, 3, 0x3f, 5, 6]);
});

Deno.test("Vga's status shows retraces 70 times a second", () => {
  const context = new TestContext();
  const vga = new Vga(context);
  let [frames, before] = [0, 0];
  for (; context.time < 1e9; context.time += 20000) {
    const retrace = vga.read(0x3da, 1) & 8;
    if (retrace && !before) frames++;
    before = retrace;
  }
  assertEquals(frames, 70);
});

Deno.test("Vga survives save and load", () => {
  checkSaveLoad((context) => new Vga(context), { rounds: 3 });
});
