import { assert, assertEquals, assertThrows } from "@std/assert";
import { Acpi } from "./acpi.ts";
import { Bus } from "./bus.ts";
import { DebugPorts } from "./debug.ts";
import type { Size } from "./device.ts";
import { FwCfg } from "./fw_cfg.ts";
import { I8042 } from "./i8042.ts";
import { PciConfig } from "./pci.ts";
import { Pic } from "./pic.ts";
import { Pit } from "./pit.ts";
import { Rtc } from "./rtc.ts";
import { activity, Random, TestContext } from "./testing.ts";
import { serialPorts, Uart } from "./uart.ts";
import type { Plain } from "../machine/record.ts";
import { like } from "../machine/shape.ts";
import { Vga } from "./vga.ts";

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
pit     2        40-43 61
rtc     1        70-71
com1    2        3f8-3ff
com2    2        2f8-2ff
com3    2        3e8-3ef
com4    2        2e8-2ef
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

Deno.test("Bus prints every device", () => {
  const context = new TestContext(), bus = pc(context), random = new Random(99);
  for (const device of bus.devices) activity(device, context, random, 200);
  for (const device of bus.devices) {
    assert(device.show().startsWith(device.name), device.name);
    assertEquals(Deno.inspect(device), device.show());
  }
});

Deno.test("what a device comes to is a state of it, whatever a guest does and whenever", () => {
  for (let seed = 1; seed <= 30; seed++) {
    const context = new TestContext(), bus = pc(context), random = new Random(seed * 7919);
    for (const device of bus.devices) {
      for (const late of [0, 3600e9, 2 ** 47]) {
        context.time += late;
        activity(device, context, random, 150);
        like(device)(device.state as Plain, `${device.name}, seed ${seed}`);
      }
    }
  }
});

/** Notes which device got which bytes: `[name, port or address, size]`. */
function spied(bus: Bus): { log: [string, number, Size][] } {
  const log: [string, number, Size][] = [];
  for (const device of bus.devices) {
    for (const [read, write] of [["read", "write"], ["mmioRead", "mmioWrite"]] as const) {
      if (!device[read]) continue;
      device[read] = (at, size) => (log.push([device.name, at, size]), 0);
      device[write] = (at, size) => void log.push([device.name, at, size]);
    }
  }
  return { log };
}

Deno.test("Bus hands every byte to the device that owns it, and none to another, at every edge", () => {
  const bus = pc(), { log } = spied(bus);
  const ports = bus.devices.flatMap((d) => d.ports.flatMap(([first, last]) => [first, last]));
  for (const edge of new Set(ports)) {
    for (let port = Math.max(0, edge - 4); port <= edge + 1; port++) {
      for (const size of [1, 2, 4] as const) {
        const registers = bus.owners[port]?.registers?.[port];
        const expected = registers?.includes(size)
          ? [[port, bus.owners[port]!.name]]
          : Array.from({ length: size }, (_, i) => [port + i, bus.owners[port + i]?.name])
            .filter(([at, name], i) =>
              name && !(i > 0 && bus.owners[at as number]!.registers?.[at as number])
            );
        for (const write of [false, true]) {
          log.length = 0;
          if (write) bus.write(port, size, 0x04030201);
          else bus.read(port, size);
          const got = log.flatMap(([name, at, n]) =>
            registers?.includes(size)
              ? [[at, name]]
              : Array.from({ length: n }, (_, i) => [at + i, name])
          );
          got.sort(([a], [b]) => Number(a) - Number(b));
          assertEquals(got, expected, `port ${port.toString(16)}, ${size} bytes`);
        }
      }
    }
  }
  for (const address of [0x9fffd, 0x9ffff, 0xbfffd, 0xbffff]) {
    log.length = 0;
    bus.mmioWrite(address, 4, 0);
    bus.mmioRead(address, 4);
    assert(
      log.every(([name, at, size]) => name === "vga" && at + size <= 0xc0000 && at >= 0xa0000),
    );
    const inside = [0, 1, 2, 3].filter((i) => address + i >= 0xa0000 && address + i < 0xc0000);
    assertEquals(log.length, 2 * inside.length);
  }
});

Deno.test("the exit port takes what begins there, and not what runs over it", () => {
  const exits: number[] = [], text: number[] = [];
  const bus = new Bus();
  bus.attach(new DebugPorts({ exit: (s) => exits.push(s), output: (b) => text.push(b) }));
  for (const [port, size] of [[0xf3, 2], [0xf3, 4], [0xf2, 4], [0xf1, 4]] as const) {
    bus.write(port, size, 0x04030201);
    assertEquals(bus.read(port, size), 256 ** size - 1);
  }
  assertEquals(exits, []);
  bus.write(0xf4, 4, 0x10203);
  bus.write(0xf4, 2, 3);
  assertEquals(exits, [0x20407, 7]);
  // A console port is a byte wide: what runs over it gives it one.
  bus.write(0xe8, 4, 0x44434241);
  bus.write(0xe9, 2, 0x4443);
  assertEquals(text, [0x42, 0x43]);
});
