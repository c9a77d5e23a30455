import { assert, assertEquals, assertThrows } from "@std/assert";
import { Pic } from "./pic.ts";
import { checkSaveLoad } from "./testing.ts";

/** As a PC's firmware does: vectors 20h and 28h, everything unmasked. */
function ready(icw4 = 1, icw1 = 0x11): Pic {
  const pic = new Pic();
  for (const [port, cascade, base] of [[0x20, 4, 0x20], [0xa0, 2, 0x28]]) {
    for (const [at, value] of [[0, icw1], [1, base], [1, cascade], [1, icw4], [1, 0]]) {
      pic.write(port + at, 1, value);
    }
  }
  return pic;
}
const eoi = (pic: Pic, port = 0x20, command = 0x20) => pic.write(port, 1, command);

Deno.test("Pic gives the vector of the highest request and holds back lower ones until EOI", () => {
  const pic = ready();
  pic.setLine(4, true);
  pic.setLine(1, true);
  assert(pic.intr);
  assertEquals(pic.acknowledge(), 0x21);
  assert(!pic.intr);
  eoi(pic);
  assert(pic.intr);
  assertEquals(pic.acknowledge(), 0x24);
  pic.setLine(0, true);
  assertEquals(pic.acknowledge(), 0x20, "a higher one interrupts");
});

Deno.test("Pic in edge mode needs a new edge, in level mode (ELCR) only the level", () => {
  const pic = ready();
  pic.setLine(5, true);
  pic.acknowledge();
  eoi(pic);
  assert(!pic.intr);
  pic.write(0x4d0, 1, 0xff);
  assertEquals(pic.read(0x4d0, 1), 0xf8, "IRQ 0 to 2 stay edge triggered");
  assert(pic.intr);
  pic.acknowledge();
  eoi(pic);
  assert(pic.intr);
  pic.setLine(5, false);
  assert(!pic.intr);
});

Deno.test("Pic cascades the slave and needs both EOIs", () => {
  const pic = ready();
  pic.setLine(12, true);
  assertEquals(pic.highestPending(), 12);
  assertEquals(pic.acknowledge(), 0x2c);
  pic.write(0x20, 1, 0x0b);
  pic.write(0xa0, 1, 0x0b);
  assertEquals([pic.read(0x20, 1), pic.read(0xa0, 1)], [4, 0x10]);
  pic.setLine(8, true);
  eoi(pic, 0xa0);
  assert(!pic.intr, "the master still serves IR2");
  eoi(pic);
  assertEquals(pic.acknowledge(), 0x28);
});

Deno.test("Pic answers IRQ 7 and 15 for requests that went away", () => {
  const pic = ready();
  pic.setLine(3, true);
  pic.setLine(3, false);
  assert(!pic.intr);
  assertEquals(pic.acknowledge(), 0x27);
  assertEquals(pic.state.chips[0].isr, 0);
  pic.setLine(10, true);
  pic.state.chips[1].irr = 0; // between the master's answer and the slave's
  assertEquals(pic.acknowledge(), 0x2f);
  assertEquals([pic.state.chips[0].isr, pic.state.chips[1].isr], [4, 0]);
});

Deno.test("Pic masks by OCW1 and reads IRR, ISR, IMR", () => {
  const pic = ready();
  pic.write(0x21, 1, 0x10);
  pic.setLine(4, true);
  assert(!pic.intr);
  pic.write(0x20, 1, 0x0a);
  assertEquals([pic.read(0x20, 1), pic.read(0x21, 1)], [0x10, 0x10]);
  pic.write(0x21, 1, 0);
  assertEquals(pic.acknowledge(), 0x24);
  pic.write(0x20, 1, 0x0b);
  assertEquals(pic.read(0x20, 1), 0x10);
  eoi(pic, 0x20, 0x64);
  assertEquals(pic.read(0x20, 1), 0);
});

Deno.test("Pic rotates priorities", () => {
  const pic = ready();
  pic.setLine(3, true);
  pic.acknowledge();
  eoi(pic, 0x20, 0xa0); // rotate on non-specific EOI: IR3 is lowest now
  pic.setLine(3, false);
  pic.setLine(3, true);
  pic.setLine(4, true);
  assertEquals(pic.acknowledge(), 0x24);
  eoi(pic);
  pic.write(0x20, 1, 0xc0 | 7); // set priority: IR7 lowest
  assertEquals(pic.acknowledge(), 0x23);
});

Deno.test("Pic with automatic EOI never serves; with rotation the served one comes last", () => {
  const pic = ready(3);
  pic.write(0x20, 1, 0x80);
  pic.setLine(1, true);
  pic.setLine(6, true);
  assertEquals(pic.acknowledge(), 0x21);
  pic.setLine(1, false);
  pic.setLine(1, true);
  assertEquals(pic.acknowledge(), 0x26);
  assertEquals(pic.acknowledge(), 0x21);
  assertEquals(pic.state.chips[0].isr, 0);
});

Deno.test("Pic in special mask mode lets lower levels through, and spares masked ones at EOI", () => {
  const pic = ready();
  pic.setLine(1, true);
  pic.acknowledge();
  pic.write(0x21, 1, 2);
  pic.setLine(6, true);
  assert(!pic.intr);
  pic.write(0x20, 1, 0x68);
  assertEquals(pic.acknowledge(), 0x26);
  eoi(pic);
  assertEquals(pic.state.chips[0].isr, 2);
});

Deno.test("Pic polls", () => {
  const pic = ready();
  pic.setLine(3, true);
  pic.write(0x20, 1, 0x0c);
  assertEquals(pic.read(0x20, 1), 0x83);
  assertEquals(pic.state.chips[0].isr, 8);
  pic.write(0x20, 1, 0x0c);
  assertEquals(pic.read(0x20, 1), 0);
});

Deno.test("Pic in special fully nested mode lets the slave interrupt its own service", () => {
  const pic = ready(0x11);
  pic.setLine(12, true);
  pic.acknowledge();
  pic.setLine(9, true);
  assertEquals(pic.acknowledge(), 0x29);
});

Deno.test("Pic is silent while it is being initialized, and needs new edges after", () => {
  const pic = ready();
  pic.setLine(1, true);
  pic.write(0x20, 1, 0x11);
  assert(!pic.intr);
  for (const value of [0x40, 4, 1]) pic.write(0x21, 1, value);
  assert(!pic.intr);
  pic.setLine(1, false);
  pic.setLine(1, true);
  assertEquals(pic.acknowledge(), 0x41);
});

Deno.test("Pic refuses lines that do not exist", () => {
  assertThrows(() => new Pic().setLine(16, true), RangeError, "IRQ 16 does not exist");
});

Deno.test("Pic reports its output's changes and survives save and load", () => {
  const levels: boolean[] = [];
  const pic = new Pic({ intr: (level) => levels.push(level) });
  for (const value of [0x11]) pic.write(0x20, 1, value);
  for (const value of [0x20, 4, 1, 0]) pic.write(0x21, 1, value);
  pic.setLine(0, true);
  pic.acknowledge();
  assertEquals(levels, [true, false]);
  checkSaveLoad(() => new Pic(), {
    extra: (device, random) => {
      if (random.next(3)) device.setLine(random.next(16), random.next(2) === 1);
      else device.acknowledge();
    },
  });
});
