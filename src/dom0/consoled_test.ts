import { assert, assertEquals, assertThrows } from "@std/assert";
import { decodePlain, encodePlain, RecordError } from "../machine/record.ts";
import { StateRegistry } from "../machine/state_block.ts";
import { ConsoleRing } from "./consoled.ts";
import { plainPage } from "./ring.ts";
import { drawing } from "./testing.ts";
import { textOf } from "./text.ts";
import { CONSOLE_PAGE } from "./pages.ts";

const { data: out, indices: out_cons } = CONSOLE_PAGE.output;
const { indices: in_cons } = CONSOLE_PAGE.input;

/** A console whose guest is this test; the sink takes so many bytes. */
function made() {
  const bytes = new Uint8Array(4096), page = plainPage(bytes), blocks = new StateRegistry();
  const it = { room: Infinity, shown: "", notified: 0 };
  const ring = new ConsoleRing({ page: () => page, notify: () => it.notified++ }, {
    write: (given) => {
      const taken = Math.min(given.length, it.room);
      it.room -= taken;
      it.shown += textOf(given.subarray(0, taken));
      return taken;
    },
  });
  ring.register(blocks);
  /** What the guest writes, as far as there is room. */
  const write = (text: string) => {
    const produced = page.word(out_cons + 4), used = (produced - page.word(out_cons)) >>> 0;
    const length = Math.min(text.length, 2048 - used);
    for (let n = 0; n < length; n++) {
      bytes[out + ((produced + n) >>> 0) % 2048] = text.charCodeAt(n);
    }
    page.setWord(out_cons + 4, produced + length);
    ring.run();
    return length;
  };
  const read = (most: number) => {
    const consumed = page.word(in_cons), used = (page.word(in_cons + 4) - consumed) >>> 0;
    const length = Math.min(most, used);
    const taken = Array.from({ length }, (_, n) => bytes[((consumed + n) >>> 0) % 1024]);
    page.setWord(in_cons, consumed + length);
    ring.run();
    return textOf(Uint8Array.from(taken));
  };
  return { it, ring, page, bytes, blocks, write, read };
}
const text = (length: number) =>
  Array.from({ length }, (_, n) => String.fromCharCode(33 + n % 90)).join("");

Deno.test("the console's rings carry all bytes, across every wrap, and 2^32", () => {
  const { it, page, write, read, ring } = made(), draw = drawing(3);
  for (const at of [out_cons, out_cons + 4, in_cons, in_cons + 4]) page.setWord(at, 0xffff_fff0);
  let written = "", typed = "", got = "";
  for (let n = 0; n < 500; n++) {
    const line = text(draw(300));
    assertEquals(write(line), line.length);
    written += line;
    const keys = text(draw(40));
    ring.input(Uint8Array.from(keys, (c) => c.charCodeAt(0)));
    typed += keys;
    got += read(draw(60));
  }
  assertEquals(it.shown, written);
  while (ring.waiting || got.length < typed.length) got += read(1024);
  assertEquals(got, typed);
});

Deno.test("a sink that takes no more leaves the ring full, and loses nothing", () => {
  const { it, ring, page, write } = made(), line = text(5000);
  it.room = 100;
  assertEquals(write(line), 2048);
  assertEquals([it.shown.length, it.notified], [100, 1]);
  assertEquals(write(line.slice(2048)), 100);
  assertEquals((page.word(out_cons + 4) - page.word(out_cons)) >>> 0, 2048);
  assertEquals([write("more"), it.notified], [0, 1]);
  it.room = Infinity;
  ring.run();
  assertEquals([it.shown, it.notified], [line.slice(0, 2148), 2]);
  ring.run();
  assertEquals(it.notified, 2);
});

Deno.test("what is typed waits for room in the ring", () => {
  const { it, ring, read } = made(), keys = text(3000);
  ring.input(Uint8Array.from(keys, (c) => c.charCodeAt(0)));
  assertEquals([ring.waiting, it.notified], [3000 - 1024, 1]);
  ring.run();
  assertEquals(it.notified, 1);
  assertEquals([read(1), ring.waiting, it.notified], [keys[0], 3000 - 1025, 2]);
  let all = keys[0];
  while (ring.waiting) all += read(700);
  assertEquals(all + read(1024), keys);
});

Deno.test("a console ring whose indices make no sense stands still until they do", () => {
  const { it, ring, page, bytes, write } = made();
  for (const at of [out_cons + 4, out_cons]) {
    write("ok");
    const good = page.word(at), before = [it.shown, it.notified];
    page.setWord(at, page.word(out_cons) + (at === out_cons ? 1 : 2049));
    const all = bytes.slice();
    ring.run();
    assertEquals([it.shown, it.notified], before);
    assertEquals(bytes, all);
    page.setWord(at, good);
  }
  page.setWord(in_cons, 1);
  ring.input(Uint8Array.of(65));
  assertEquals([ring.waiting, page.word(in_cons + 4)], [1, 0]);
  page.setWord(in_cons, 0);
  ring.run();
  assertEquals([ring.waiting, bytes[0]], [0, 65]);
  const draw = drawing(11);
  for (let n = 0; n < 20_000; n++) {
    if (draw(3) === 0) {
      page.setWord(in_cons + 4 * draw(4), draw(2) ? draw(4000) : draw(0xffff_ffff));
    }
    if (draw(4) === 0) it.room = draw(100);
    const used = (page.word(out_cons + 4) - page.word(out_cons)) >>> 0, shown = it.shown.length;
    ring.run();
    assertEquals(it.shown.length - shown <= (used > 2048 ? 0 : used), true);
    it.shown = "";
  }
});

Deno.test("a console's typed bytes are state, and a domain without a page has none", () => {
  const { ring, blocks, it } = made();
  ring.input(Uint8Array.from(text(1500), (c) => c.charCodeAt(0)));
  const state = decodePlain(encodePlain(blocks.save())), other = made();
  const hash = blocks.hash;
  other.blocks.prepare(state)();
  assertEquals([other.ring.waiting, other.blocks.hash], [1500 - 1024, hash]);
  assertThrows(
    () =>
      blocks.prepare({ "console ring": { version: 1, configuration: {}, record: { typed: 1 } } }),
    RecordError,
    "console ring.typed is 1, expected bytes",
  );
  const bare = new ConsoleRing({ page: () => undefined, notify: () => assert(false) }, {
    write: () => 0,
  });
  bare.input(Uint8Array.of(1));
  assertEquals([bare.waiting, it.notified], [1, 1]);
});
