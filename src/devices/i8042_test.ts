import { assert, assertEquals, assertThrows } from "@std/assert";
import { I8042 } from "./i8042.ts";
import { keyCodes, keyFor, scanCodes, translate } from "./keys.ts";
import { checkSaveLoad, TestContext } from "./testing.ts";

function made() {
  const context = new TestContext();
  const events: string[] = [];
  const i8042 = new I8042(context, {
    reset: (cause) => events.push(cause),
    a20: (enabled) => events.push(`a20 ${enabled}`),
  });
  return { i8042, context, events };
}
const command = (c: I8042, value: number, data?: number) => {
  c.write(0x64, 1, value);
  if (data !== undefined) c.write(0x60, 1, data);
};
/** All bytes there are, mouse's + 100h. */
function drain(c: I8042): number[] {
  const bytes: number[] = [];
  for (let status; (status = c.read(0x64, 1)) & 1;) {
    bytes.push(c.read(0x60, 1) | (status & 0x20) << 3);
  }
  return bytes;
}

Deno.test("I8042 tests itself and its ports", () => {
  const { i8042 } = made();
  for (const [value, answer] of [[0xaa, 0x55], [0xa9, 0], [0xab, 0], [0xa4, 0xf1]]) {
    command(i8042, value);
    assertEquals(drain(i8042), [answer]);
  }
});

Deno.test("I8042 keeps the command byte, and A7h, A8h, ADh, AEh change it", () => {
  const { i8042 } = made();
  const byte = () => (command(i8042, 0x20), drain(i8042)[0]);
  command(i8042, 0x60, 0x65);
  assertEquals(byte(), 0x65);
  for (const [value, expected] of [[0xa7, 0x65], [0xa8, 0x45], [0xad, 0x55], [0xae, 0x45]]) {
    command(i8042, value);
    assertEquals(byte(), expected);
  }
});

Deno.test("I8042 returns D2h's byte as the keyboard's and D3h's as the mouse's", () => {
  const { i8042, context } = made();
  command(i8042, 0x60, 0x47);
  command(i8042, 0xd3, 0xa5);
  assert(context.lines[12] && !context.lines[1]);
  assertEquals(drain(i8042), [0x1a5]);
  assert(!context.lines[12]);
  command(i8042, 0xd2, 0x1c);
  assert(context.lines[1] && !context.lines[12]);
  assertEquals(drain(i8042), [0x1c]);
});

Deno.test("I8042 translates scan code set 2 to set 1, one interrupt each byte", () => {
  const { i8042, context } = made();
  i8042.type("aB\n");
  i8042.press("Up");
  assertEquals(context.lines[1], true);
  context.edges.length = 0;
  // deno-fmt-ignore
  assertEquals(drain(i8042), [
    0x1e, 0x9e, 0x2a, 0x30, 0xb0, 0xaa, 0x1c, 0x9c, 0xe0, 0x48,
  ]);
  assertEquals(context.edges.filter(([line, level]) => line === 1 && level).length, 9);
});

Deno.test("I8042 gives plain set 2 when translation is off, and set 1 when the keyboard is", () => {
  const { i8042 } = made();
  command(i8042, 0x60, 0x05);
  i8042.type("a");
  assertEquals(drain(i8042), [0x1c, 0xf0, 0x1c]);
  i8042.write(0x60, 1, 0xf0);
  i8042.write(0x60, 1, 1);
  assertEquals(drain(i8042), [0xfa, 0xfa]);
  i8042.chord("RightControl", "c");
  assertEquals(drain(i8042), [0xe0, 0x1d, 0x2e, 0xae, 0xe0, 0x9d]);
});

Deno.test("I8042's keyboard answers what Linux's atkbd asks", () => {
  const { i8042 } = made();
  command(i8042, 0x60, 0x05);
  const ask = (...bytes: number[]) => {
    for (const byte of bytes) i8042.write(0x60, 1, byte);
    return drain(i8042);
  };
  assertEquals(ask(0xf2), [0xfa, 0xab, 0x83]);
  assertEquals(ask(0xff), [0xfa, 0xaa]);
  assertEquals(ask(0xed, 2), [0xfa, 0xfa]);
  assertEquals(i8042.state.keyboard.leds, 2);
  assertEquals(ask(0xf0, 0), [0xfa, 0xfa, 2]);
  assertEquals(ask(0xf3, 0), [0xfa, 0xfa]);
  assertEquals(ask(0xee), [0xee]);
  assertEquals(ask(0xfe), [0xee]);
  assertEquals(ask(0xf5), [0xfa]);
  i8042.type("a");
  assertEquals(drain(i8042), [], "scanning is off");
  assertEquals(ask(0xf4), [0xfa]);
  assertEquals(ask(0xfb), [0xfe]);
});

Deno.test("I8042's mouse answers, becomes an IntelliMouse and reports", () => {
  const { i8042, context } = made();
  command(i8042, 0x60, 0x47);
  const ask = (...bytes: number[]) => {
    for (const byte of bytes) command(i8042, 0xd4, byte);
    return drain(i8042).map((byte) => byte - 0x100);
  };
  assertEquals(ask(0xff), [0xfa, 0xaa, 0]);
  assertEquals(ask(0xf2), [0xfa, 0]);
  assertEquals(ask(0xe9), [0xfa, 0, 2, 100]);
  i8042.move(1, 1);
  assertEquals(drain(i8042), [], "not reporting");
  assertEquals(ask(0xf4), [0xfa]);
  i8042.move(-3, 5, 1);
  assert(context.lines[12]);
  assertEquals(drain(i8042), [0x119, 0x1fd, 0x105]);
  for (const rate of [200, 100, 80]) ask(0xf3, rate);
  assertEquals(ask(0xf2), [0xfa, 3]);
  i8042.move(0, 0, 0, -1);
  assertEquals(drain(i8042), [0x108, 0x100, 0x100, 0x1ff]);
  i8042.move(300, 0);
  assertEquals(drain(i8042), [0x108, 0x1ff, 0x100, 0x100, 0x108, 0x12d, 0x100, 0x100]);
});

Deno.test("I8042 switches A20 and resets", () => {
  const { i8042, events } = made();
  command(i8042, 0xd1, 0xdd);
  assert(!i8042.a20);
  command(i8042, 0xdf);
  command(i8042, 0xd0);
  assertEquals(drain(i8042).map((byte) => byte & 3), [3]);
  command(i8042, 0xff);
  command(i8042, 0xfe);
  assertEquals(events, ["a20 false", "a20 true", "port 64h, command feh"]);
});

Deno.test("keyFor() and scanCodes() know every printable character, and refuse others", () => {
  for (let code = 0x20; code < 0x7f; code++) {
    const { key } = keyFor(String.fromCharCode(code));
    assert(scanCodes(key, true).length === 1);
  }
  assertEquals(keyFor("\x03"), { key: "c", modifier: "Control" });
  assertThrows(() => keyFor("ä"), RangeError, 'no key of a US keyboard types "ä"');
  assertThrows(() => scanCodes("Hyper", true), RangeError, 'there is no key "Hyper"');
  const { i8042 } = made();
  assertThrows(() => i8042.type("aé"), RangeError);
  assertEquals(drain(i8042), []);
});

Deno.test("translate() is one to one on the keys", () => {
  const codes = Object.values(keyCodes).filter((code) => code < 0x100);
  assertEquals(new Set(codes.map(translate)).size, codes.length);
  for (const code of codes) assert(translate(code) < 0x80);
});

Deno.test("I8042 survives save and load", () => {
  checkSaveLoad((context) => new I8042(context), {
    rounds: 40,
    extra: (device, random) => {
      if (random.next(2)) device.type("Xy z!"[random.next(5)]);
      else device.move(random.next(600) - 300, random.next(9) - 4, random.next(8), 1);
    },
  });
});
