// Debug ports, fw_cfg, PCI configuration ports, ACPI, and the bus that carries them.

import { assert, assertEquals, assertThrows } from "@std/assert";
import { Acpi, pm1, pmTimerFrequency } from "./acpi.ts";
import { Bus } from "./bus.ts";
import { DebugPorts } from "./debug.ts";
import { decodePlain, encodePlain, RecordError, save, ticksAt, timeOfTick } from "./device.ts";
import { FwCfg } from "./fw_cfg.ts";
import { I8042 } from "./i8042.ts";
import { PciConfig } from "./pci.ts";
import { Pic } from "./pic.ts";
import { Pit } from "./pit.ts";
import { Rtc } from "./rtc.ts";
import { activity, checkSaveLoad, Random, runTo, TestContext } from "./testing.ts";
import { serialPorts, Uart } from "./uart.ts";
import { Vga } from "./vga.ts";

Deno.test("ticksAt() and timeOfTick() are exact inverses over years", () => {
  for (const frequency of [32768, 1193182, 3579545]) {
    for (const tick of [0, 1, 7, frequency - 1, frequency, frequency * 86400 * 90 + 12345]) {
      const time = timeOfTick(tick, frequency);
      assertEquals(ticksAt(time, frequency), tick);
      if (tick > 0) assertEquals(ticksAt(time - 1, frequency), tick - 1);
    }
  }
});

Deno.test("DebugPorts lead text, exit status and POST codes out", () => {
  const text: number[] = [], exits: number[] = [], posts: [number, number][] = [];
  const debug = new DebugPorts({
    output: (byte) => text.push(byte),
    exit: (status) => exits.push(status),
    post: (code, port) => posts.push([code, port]),
    consolePorts: [0xe9, 0x12],
  });
  assertEquals(debug.read(0xe9, 1), 0xe9);
  debug.write(0xe9, 1, 72);
  debug.write(0x12, 1, 105);
  assertEquals(String.fromCharCode(...text), "Hi");
  debug.write(0xf4, 4, 0);
  debug.write(0xf4, 1, 0x10);
  assertEquals(exits, [1, 0x21]);
  debug.write(0x190, 1, 0xff);
  debug.write(0x80, 1, 0x11);
  assertEquals(posts, [[0xff, 0x190], [0x11, 0x80]]);
  assertEquals(debug.read(0x80, 1), 0x11);
  checkSaveLoad(() => new DebugPorts(), { rounds: 3 });
});

Deno.test("FwCfg gives what kvm-unit-tests reads", () => {
  const fw = new FwCfg({ memory: 0x1_8000_0000, cpus: 3 });
  const item = (selector: number, length: number) => {
    fw.write(0x510, 2, selector);
    return Array.from({ length }, () => fw.read(0x511, 1));
  };
  assertEquals(String.fromCharCode(...item(0, 4)), "QEMU");
  assertEquals(item(1, 4), [1, 0, 0, 0]);
  assertEquals(item(3, 9), [0, 0, 0, 0x80, 1, 0, 0, 0, 0]);
  assertEquals(item(5, 2), [3, 0]);
  assertEquals(item(0x7777, 2), [0, 0]);
  checkSaveLoad(() => new FwCfg({ memory: 1 << 20 }), { rounds: 3 });
});

Deno.test("PciConfig keeps its address and answers all ones without a bus", () => {
  const pci = new PciConfig();
  pci.write(0xcf8, 4, 0x80000000);
  assertEquals(pci.read(0xcf8, 4), 0x80000000);
  pci.write(0xcf8, 1, 0x01);
  assertEquals(pci.read(0xcf8, 4), 0x80000000, "only 32-bit accesses count");
  assertEquals([pci.read(0xcfc, 4), pci.read(0xcfe, 2), pci.read(0xcff, 1)], [
    0xffffffff,
    0xffff,
    0xff,
  ]);
  checkSaveLoad(() => new PciConfig(), { rounds: 3 });
});

Deno.test("PciConfig names bus, device, function and register to its bus", () => {
  const calls: number[][] = [];
  const pci = new PciConfig({
    read: (...args) => (calls.push(args), 0x1234),
    write: (...args) => void calls.push(args),
  });
  pci.write(0xcf8, 4, 0x80000000 | 2 << 16 | 3 << 11 | 5 << 8 | 0x40);
  assertEquals(pci.read(0xcfe, 2), 0x1234);
  pci.write(0xcfd, 1, 7);
  pci.write(0xcf8, 4, 0);
  assertEquals(pci.read(0xcfc, 4), 0xffffffff, "not enabled");
  assertEquals(calls, [[2, 3, 5, 0x42, 2], [2, 3, 5, 0x41, 1, 7]]);
});

function acpi(options: { timerBits?: 24 | 32 } = {}) {
  const context = new TestContext();
  const events: string[] = [];
  const device = new Acpi(context, {
    ...options,
    powerOff: () => events.push("off"),
    sleep: (type) => events.push(`sleep ${type}`),
    reset: (cause) => events.push(cause),
    a20: (enabled) => events.push(`a20 ${enabled}`),
  });
  return { context, events, acpi: device };
}

Deno.test("Acpi's timer counts at 3.579545 MHz in 24 or 32 bits", () => {
  for (const bits of [24, 32] as const) {
    const { acpi: device, context } = acpi({ timerBits: bits });
    context.time = 2000e9;
    assertEquals(device.read(0x608, 4), pmTimerFrequency * 2000 % 2 ** bits);
    assertEquals(device.read(0x609, 1), device.read(0x608, 4) >>> 8 & 0xff);
  }
});

Deno.test("Acpi sets TMR_STS at each carry, and the SCI if enabled", () => {
  const { acpi: device, context } = acpi({ timerBits: 24 });
  device.write(0x602, 2, pm1.timer);
  runTo(device, context, 2.3e9);
  assertEquals(device.read(0x600, 2), 0);
  runTo(device, context, 2.4e9);
  assertEquals(device.read(0x600, 2), 1);
  assert(context.lines[9]);
  device.write(0x600, 2, 1);
  assert(!context.lines[9]);
  assertEquals(device.read(0x600, 2), 0);
});

Deno.test("Acpi's power button raises the SCI in ACPI mode only", () => {
  const { acpi: device, context } = acpi();
  device.write(0x602, 2, pm1.powerButton);
  device.write(0xb2, 1, 0xf0);
  device.pressPowerButton();
  assert(!context.lines[9]);
  device.write(0xb2, 1, 0xf1);
  assert(context.lines[9]);
  assertEquals(device.read(0x604, 2), 1);
  device.write(0x600, 2, pm1.powerButton);
  assert(!context.lines[9]);
});

Deno.test("Acpi powers off by SLP_EN with S5's type, resets by CF9h and 92h", () => {
  const { acpi: device, events } = acpi();
  device.write(0x604, 2, 0x0400);
  assertEquals(events, []);
  device.write(0x604, 2, 0x2400);
  device.write(0x604, 2, 0x2001);
  device.write(0xcf9, 1, 2);
  device.write(0xcf9, 1, 6);
  device.write(0x92, 1, 0);
  device.write(0x92, 1, 3);
  assertEquals(events, ["sleep 1", "off", "port CF9h, hard", "a20 false", "a20 true", "port 92h"]);
});

Deno.test("Acpi survives save and load", () => {
  checkSaveLoad((context) => new Acpi(context, { timerBits: 24 }), {
    extra: (device, random) => random.next(2) ? device.pressPowerButton() : device.run(0),
  });
});

/** A whole PC's devices. */
function pc(context = new TestContext()): Bus {
  const bus = new Bus();
  bus.attach(new Pic());
  bus.attach(new Pit(context));
  bus.attach(new Rtc(context, { unixTime: 1e9, memory: 64 << 20 }));
  for (const port of Object.values(serialPorts)) bus.attach(new Uart(context, port));
  bus.attach(new I8042(context));
  bus.attach(new Vga(context));
  bus.attach(new DebugPorts());
  bus.attach(new FwCfg({ memory: 64 << 20 }));
  bus.attach(new Acpi(context));
  bus.attach(new PciConfig());
  return bus;
}

Deno.test("Bus lists all devices with their ports", () => {
  assertEquals(
    pc().show(),
    `\
device  version  ports                            memory
pic     1        20-21 a0-a1 4d0-4d1
pit     1        40-43 61
rtc     1        70-71
com1    1        3f8-3ff
com2    1        2f8-2ff
com3    1        3e8-3ef
com4    1        2e8-2ef
i8042   1        60 64
vga     1        3b4-3b5 3ba 3c0-3cf 3d4-3d5 3da  a0000-bffff
debug   1        80 f4 190 e9
fw_cfg  1        510-511
acpi    1        600-605 608-60b b2-b3 92 cf9
pci     1        cf8 cfc-cff`,
  );
});

Deno.test("Bus splits what is too wide, and answers all ones where nobody is", () => {
  const bus = pc();
  assertEquals([bus.read(0x1234, 1), bus.read(0x1234, 2), bus.read(0x1234, 4)], [
    0xff,
    0xffff,
    0xffffffff,
  ]);
  bus.write(0x3d4, 2, 0x340f); // index and data in one access
  assertEquals(bus.read(0x3d4, 2), 0x340f);
  bus.write(0xcf8, 4, 0x80001234);
  assertEquals(bus.read(0xcf8, 4), 0x80001234);
  assertEquals(bus.read(0xcf9, 1), 0, "CF9h alone is the reset register");
  bus.mmioWrite(0xb8000, 4, 0x07420741);
  assertEquals(bus.mmioRead(0xb8002, 2), 0x0742);
  assertEquals((bus.get("vga") as Vga).text(), "AB");
  assertEquals(bus.mmioRead(0xd0000, 4), 0xffffffff);
});

Deno.test("Bus refuses conflicts and names what it has", () => {
  const bus = pc();
  const context = new TestContext();
  assertThrows(() => bus.attach(new Pic()), RangeError, "a device named pic is already attached");
  assertThrows(
    () => bus.attach(new Uart(context, { port: 0x3f8, irq: 4, name: "other" })),
    RangeError,
    "port 0x3f8 of other is already taken by com1",
  );
  assertThrows(() => bus.get("ide"), RangeError, "no device is named ide; there are pic, pit");
});

Deno.test("Bus saves and loads all devices byte-equal, and prints every one", () => {
  const context = new TestContext();
  const one = pc(context);
  const random = new Random(99);
  for (const device of one.devices) activity(device, context, random, 200);
  const saved = one.save();
  const later = new TestContext();
  later.time = context.time;
  const two = pc(later);
  two.load(saved);
  assertEquals(two.save(), saved);
  for (const device of two.devices) {
    assert(device.show().startsWith(device.name), device.name);
    assertEquals(Deno.inspect(device), device.show());
  }
  const blocks = decodePlain(saved) as Record<string, Uint8Array>;
  const { pit: _, ...rest } = blocks;
  assertThrows(() => two.load(encodePlain(rest)), RecordError, "no block for pit");
  assertEquals(save(two.get("pit")), save(one.get("pit")));
});
