import { assert, assertEquals, assertThrows } from "@std/assert";
import { LocalApic } from "./local.ts";
import { ApicBus, deliveryMode, messageOf } from "./messages.ts";
import { register } from "./registers.ts";

/** Local APICs on one bus, enabled by software; who was signalled what. */
function made(count: number, mode: "xapic" | "x2apic" = "xapic") {
  const bus = new ApicBus(), signals: string[] = [];
  const locals = Array.from({ length: count }, (_, id) => {
    const signal = (kind: string) => void signals.push(`${kind} ${id}`);
    const local = new LocalApic({ now: () => 0, signal }, { id, bus });
    local.writeRegister(register.svr, 0x1ff);
    if (mode === "x2apic") local.writeMsr(0x1b, local.readMsr(0x1b)! | 0x400n);
    return local;
  });
  /** Sends from one of them; who has which vector then. */
  const send = (from: number, low: number, destination = 0) => {
    if (mode === "x2apic") {
      assert(locals[from].writeMsr(0x830, BigInt(destination) << 32n | BigInt(low)));
    } else {
      locals[from].writeRegister(register.icrHigh, destination << 24);
      locals[from].writeRegister(register.icrLow, low);
    }
    return taken();
  };
  /** Who takes an interrupt now, by number. */
  const taken = () =>
    locals.flatMap((local, id) => {
      if (local.highestPending() < 0) return [];
      local.acknowledge();
      local.endOfInterrupt();
      return [id];
    });
  return { bus, locals, signals, send, taken };
}
const all = (count: number) => Array.from({ length: count }, (_, n) => n);

Deno.test("messageOf() takes address and data apart", () => {
  assertEquals(messageOf(0xfee0_5000, 0x0031), {
    vector: 0x31,
    mode: deliveryMode.fixed,
    level: false,
    destination: 5,
    logical: false,
  });
  assertEquals(messageOf(0xfeef_f00c, 0xc041), {
    vector: 0x41,
    mode: deliveryMode.lowest,
    level: true,
    destination: 0xff,
    logical: true,
  }, "redirection hint: one of them");
  assertEquals(messageOf(0xfee0_0004, 0x0430)?.mode, deliveryMode.nmi);
  assertEquals(messageOf(0xfee0_0008, 0x0430)?.mode, deliveryMode.nmi, "no vector to redirect");
  assertEquals(messageOf(0xfee0_0000, 0xc430)?.level, false, "an NMI is an edge");
  assertEquals(messageOf(0xfee0_0000, 0x8031), undefined, "the end of a level");
  assertEquals(messageOf(0xfee0_0000, 0x0031)?.level, false, "an edge has no end");
  assertEquals(messageOf(0xfec0_0000, 0x0031), undefined, "no message");
});

Deno.test("ApicBus.write() delivers a device's message", () => {
  const { bus, locals, taken } = made(4);
  assert(bus.write(0xfee0_2000, 0x31));
  assertEquals(taken(), [2]);
  assert(!bus.write(0xfee0_9000, 0x31), "nobody has that id");
  assert(!bus.write(0xfee0_2000, 0x03), "no vector below 16");
  assert(bus.write(0xfeef_f000, 0xc0f1));
  assertEquals(locals.map((l) => l.state.tmr[7]), [1 << 17, 1 << 17, 1 << 17, 1 << 17], "level");
  assertEquals(taken(), all(4));
});

Deno.test("xAPIC: physical, flat and cluster destinations among sixteen", () => {
  const { locals, send } = made(16);
  assertEquals(send(3, 0x40, 15), [15]);
  assertEquals(send(3, 0x40, 0xff), all(16));
  assertEquals(send(3, 0x840, 0xff), [], "none has a logical id yet");
  locals.slice(0, 8).forEach((local, n) => local.writeRegister(register.ldr, 1 << 24 + n));
  assertEquals(send(0, 0x840, 0x91), [0, 4, 7]);
  assertEquals(send(0, 0x840, 0xff), all(8));
  // Four clusters of four.
  locals.forEach((local, n) => {
    local.writeRegister(register.dfr, 0);
    local.writeRegister(register.ldr, (n >> 2) << 28 | 1 << 24 + (n & 3));
  });
  assertEquals(send(0, 0x840, 0x25), [8, 10]);
  assertEquals(send(0, 0x840, 0xf2), [1, 5, 9, 13]);
  assertEquals(send(0, 0x840, 0xff), all(16));
  assertEquals(send(0, 0x840, 0x40), []);
});

Deno.test("x2APIC: 32-bit destinations, physical and by cluster of the id", () => {
  const { bus, send, taken } = made(16, "x2apic");
  assertEquals(send(3, 0x40, 15), [15]);
  assertEquals(send(3, 0x40, 0xff), [], "an id like any other");
  assertEquals(send(3, 0x40, 0xffff_ffff), all(16));
  assertEquals(send(3, 0x840, 0xffff_ffff), all(16));
  assertEquals(send(3, 0x840, 0x8005), [0, 2, 15]);
  assertEquals(send(3, 0x840, 0x1_8005), [], "the next cluster");
  // What devices send has 8 bits: cluster 0, and all of them physically.
  bus.write(0xfeef_f000, 0x31);
  assertEquals(taken(), all(16));
  bus.write(0xfee8_1004, 0x31);
  assertEquals(taken(), [0, 7]);
});

Deno.test("a destination of 32 bits is none of an xAPIC's own, but for the broadcast", () => {
  const { locals, send } = made(3);
  locals.forEach((local, n) => local.writeRegister(register.ldr, 1 << 24 + n));
  locals[0].writeMsr(0x1b, 0xfee0_0d00n);
  const sent = (low: bigint) => {
    locals[0].writeMsr(0x830, low);
    return locals.flatMap((l, n) => l.highestPending() >= 0 ? [l.acknowledge() && n] : []);
  };
  assertEquals(sent(0x1_0002_0000_0840n), []);
  assertEquals(sent(0x0000_0002_0000_0840n), [1]);
  assertEquals(sent(0xffff_ffff_0000_0041n).length, 2, "0 and 2: 1 serves 40h, of the same class");
  assertEquals(send(1, 0x51, 0xff), [0, 1, 2]);
});

for (const mode of ["xapic", "x2apic"] as const) {
  Deno.test(`shorthands: self, all, and all but self (${mode})`, () => {
    const { locals, signals, send } = made(5, mode);
    assertEquals(send(2, 0x4_0050), [2]);
    assertEquals(send(2, 0x8_0050), all(5));
    assertEquals(send(2, 0xc_0050), [0, 1, 3, 4]);
    locals[3].writeMsr(0x1b, 0xfee0_0000n); // off: from the bus nothing reaches it
    assertEquals(send(2, 0xc_0050), [0, 1, 4]);
    locals[4].writeRegister(register.svr, 0xff); // off by software: no vectors
    assertEquals(send(2, 0xc_0050), [0, 1]);
    signals.length = 0;
    send(2, 0xc_4400);
    assertEquals(signals, ["nmi 0", "nmi 1", "nmi 4"]);
  });

  Deno.test(`lowest priority: one, of the lowest PPR, the first on the bus of equals (${mode})`, () => {
    const { bus, locals, send, taken } = made(4, mode);
    const to = (low: number) => send(0, low | 0x800, 0xf);
    if (mode === "xapic") {
      locals.forEach((local, n) => local.writeRegister(register.ldr, 1 << 24 + n));
    }
    assertEquals(to(0x140), [0]);
    locals[0].cr8 = 2;
    assertEquals(to(0x140), [1]);
    locals[1].accept(0x61, false);
    locals[1].acknowledge();
    assertEquals(to(0x140), [2], "1 serves 61h");
    locals[2].writeRegister(register.svr, 0xff);
    assertEquals(to(0x140), [3], "2 is off by software");
    locals[3].writeMsr(0x1b, 0xfee0_0000n);
    assertEquals(to(0x140), [0], "3 is off");
    assertEquals(send(1, 0xc_0170), [0], "all but self: one of them");
    assert(bus.write(0xfee0_f00c, 0x71), "by the redirection hint");
    assertEquals(taken(), [0]);
    for (const local of locals) local.writeRegister(register.svr, 0xff);
    assert(!bus.write(0xfee0_f00c, 0x71), "nobody is able");
  });

  Deno.test(`remote reads and reserved modes reach nobody, and are no error (${mode})`, () => {
    const { locals, signals, send } = made(2, mode);
    for (const shorthand of [0, 1, 2, 3]) {
      assertEquals(send(0, shorthand << 18 | 0x340, 1), []);
    }
    assertEquals(locals.map((l) => [l.state.errors, l.readRegister(register.remoteRead)]), [
      [0, 0],
      [0, 0],
    ]);
    assertEquals((locals[0].readRegister(register.icrLow)! >> 16) & 3, 0, "remote read: invalid");
    assertEquals(signals, []);
  });

  Deno.test(`INIT, start-up, NMI and SMI wait for the processor they are for (${mode})`, () => {
    const { locals, signals, send } = made(3, mode);
    const waiting = () => locals.map(({ state: { signals: s } }) => [s.nmi, s.init, s.startup]);
    locals[2].writeRegister(register.tpr, 0x70);
    send(0, 0xc_4200);
    send(0, 0xc_4400);
    assertEquals(signals.splice(0), ["smi 1", "smi 2", "nmi 1", "nmi 2"]);
    assertEquals(waiting(), [[0, false, -1], [1, false, -1], [1, false, -1]]);
    send(0, 0x0_4611, 2);
    assertEquals(waiting()[2], [1, false, 0x11], "whether it waits for it the processor knows");
    send(0, 0xc_4500);
    assertEquals(waiting(), [[0, false, -1], [0, true, -1], [0, true, -1]]);
    assertEquals(locals[2].state.tpr, 0, "its registers are as after power-on");
    assertEquals([locals[2].state.id, locals[2].state.x2apic], [2, mode === "x2apic"]);
    locals[1].state.signals.init = false;
    send(0, 0xc_8500);
    assertEquals(waiting()[1], [0, false, -1], "the end of INIT is none");
    send(0, 0xc_46_9f);
    assertEquals(waiting(), [[0, false, -1], [0, false, 0x9f], [0, true, 0x9f]]);
    signals.length = 0;
    send(1, 0x0_4612, 0);
    assertEquals(
      [signals, waiting()[0]],
      [[], [0, false, -1]],
      "the first never waits for one",
    );
  });
}

Deno.test("two local APICs of one bus have ids of their own", () => {
  const bus = new ApicBus();
  const make = (id?: number, name?: string) => new LocalApic({ now: () => 0 }, { id, bus, name });
  make(0);
  make(3, "lapic1");
  assertThrows(
    () => make(3, "lapic2"),
    RangeError,
    "lapic2: the APIC id is 3, which is lapic1's; expected one of its own",
  );
  assertThrows(() => make(), RangeError, "the APIC id is 0, which is lapic0's");
  assertEquals(bus.locals.length, 2);
});
