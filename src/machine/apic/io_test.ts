import { assert, assertEquals, assertThrows } from "@std/assert";
import { checkSaveLoad } from "../../devices/testing.ts";
import { IoApic } from "./io.ts";
import { LocalApic } from "./local.ts";
import { ApicBus } from "./messages.ts";
import { register } from "./registers.ts";

function made() {
  const bus = new ApicBus();
  const locals = [0, 1].map((id) => new LocalApic({ now: () => 0 }, { id, bus }));
  for (const local of locals) local.mmioWrite(0xfee000f0, 4, 0x1ff);
  return { io: new IoApic({ bus }), locals };
}
const write = (io: IoApic, index: number, value: number) => {
  io.mmioWrite(0xfec00000, 4, index);
  io.mmioWrite(0xfec00010, 4, value);
};
const read = (io: IoApic, index: number) => {
  io.mmioWrite(0xfec00000, 4, index);
  return io.mmioRead(0xfec00010, 4);
};
const route = (io: IoApic, pin: number, low: number, destination = 0) => {
  write(io, 0x11 + pin * 2, destination << 24);
  write(io, 0x10 + pin * 2, low);
};
const eoi = (local: LocalApic) => local.writeRegister(register.eoi, 0);

Deno.test("IoApic has 24 masked entries after reset", () => {
  const { io } = made();
  assertEquals(read(io, 1), 0x00170011);
  for (let pin = 0; pin < 24; pin++) assertEquals(read(io, 0x10 + pin * 2), 0x10000);
  write(io, 0, 0xff000000);
  assertEquals([read(io, 0), read(io, 2)], [0x0f000000, 0x0f000000]);
});

Deno.test("IoApic sends an edge once, to the destination, and loses those on masked pins", () => {
  const { io, locals } = made();
  io.setLine(4, true);
  route(io, 4, 0x31, 1);
  assertEquals(locals[1].highestPending(), -1);
  io.setLine(4, false);
  io.setLine(4, true);
  assertEquals(locals[0].highestPending(), -1);
  assertEquals(locals[1].acknowledge(), 0x31);
  eoi(locals[1]);
  assertEquals(locals[1].highestPending(), -1);
});

Deno.test("IoApic repeats a level until it falls, once per EOI", () => {
  const { io, locals } = made();
  route(io, 9, 0x8041);
  io.setLine(9, true);
  assertEquals(read(io, 0x10 + 18), 0xc041, "remote IRR");
  assertEquals(locals[0].acknowledge(), 0x41);
  assertEquals(locals[0].highestPending(), -1);
  eoi(locals[0]);
  assertEquals(locals[0].acknowledge(), 0x41);
  io.setLine(9, false);
  eoi(locals[0]);
  assertEquals(locals[0].highestPending(), -1);
  assertEquals(read(io, 0x10 + 18), 0x8041);
});

Deno.test("IoApic forgets remote IRR when an entry becomes edge triggered", () => {
  const { io, locals } = made();
  route(io, 9, 0x8041);
  io.setLine(9, true);
  write(io, 0x10 + 18, 0x10041);
  assertEquals(read(io, 0x10 + 18), 0x10041);
  locals[0].acknowledge();
  eoi(locals[0]);
  write(io, 0x10 + 18, 0x8041);
  assertEquals(locals[0].acknowledge(), 0x41);
});

Deno.test("IoApic delivers NMI and ExtINT", () => {
  const bus = new ApicBus();
  const signals: string[] = [];
  const local = new LocalApic({ now: () => 0, signal: (kind) => signals.push(kind) }, { bus });
  const io = new IoApic({ bus });
  route(io, 3, 0x400);
  io.setLine(3, true);
  assertEquals(signals, ["nmi"]);
  route(io, 0, 0x700);
  io.setLine(0, true);
  assert(local.extInt);
  local.acknowledgeExtInt();
  assert(!local.extInt);
});

Deno.test("IoApic takes NMI, SMI, INIT and ExtINT as edges, whatever the entry says", () => {
  for (const [mode, signal] of [[2, "smi"], [4, "nmi"], [5, "init"], [7, undefined]] as const) {
    const bus = new ApicBus();
    const signals: string[] = [];
    const local = new LocalApic({ now: () => 0, signal: (kind) => signals.push(kind) }, { bus });
    const io = new IoApic({ bus });
    const low = 0x8000 | mode << 8;
    route(io, 3, low);
    for (let n = 0; n < 2; n++) {
      io.setLine(3, true);
      assertEquals(local.state.extInt, signal === undefined);
      local.acknowledgeExtInt();
      eoi(local);
      route(io, 3, low);
      io.setLine(3, false);
    }
    assertEquals(signals, signal ? [signal, signal] : []);
    assertEquals(read(io, 0x10 + 6), low, "no remote IRR");
  }
});

Deno.test("IoApic.vectorIrq() reads the table backwards, for each processor", () => {
  const { io, locals: [one, two] } = made();
  route(io, 2, 0x10030);
  route(io, 4, 0x34);
  route(io, 9, 0x10034);
  assertEquals(io.vectorIrq(0x30, one), 0, "IRQ 0 is wired to pin 2");
  assertEquals(io.vectorIrq(0x34, one), 4, "the unmasked one");
  assertEquals(io.vectorIrq(0x35, one), -1);
  route(io, 4, 0x35);
  assertEquals([0x34, 0x35].map((vector) => io.vectorIrq(vector, one)), [9, 4]);
  assertEquals([0x34, 0x35].map((vector) => io.vectorIrq(vector, two)), [-1, -1]);
  route(io, 5, 0x35, 1);
  assertEquals([one, two].map((local) => io.vectorIrq(0x35, local)), [4, 5], "a table each");
  route(io, 6, 0x36, 0xff);
  assertEquals([one, two].map((local) => io.vectorIrq(0x36, local)), [6, 6]);
  route(io, 6, 0x436);
  route(io, 7, 0x00f);
  assertEquals([0x36, 0xf].map((vector) => io.vectorIrq(vector, one)), [-1, -1], "no vectors");
  io.setIrq(0, true);
  assertEquals(io.state.lines, 4);
});

Deno.test("IoApic refuses pins that do not exist", () => {
  assertThrows(() => made().io.setLine(24, true), RangeError, "pin 24 does not exist");
});

Deno.test("IoApic survives save and load", () => {
  // Local APICs have states of their own; here all accept everything.
  class Accepting extends ApicBus {
    override deliver(): boolean {
      return true;
    }
  }
  checkSaveLoad(() => new IoApic({ bus: new Accepting() }), {
    extra: (io, random) => {
      if (random.next(2)) io.setLine(random.next(24), random.next(2) === 1);
      else write(io, random.next(0x40), random.next(2 ** 32));
    },
  });
  assert(made().io.show().startsWith("ioapic: id 0"));
});
