import { assert, assertEquals } from "@std/assert";
import { Acpi, pm1, pmTimerFrequency } from "./acpi.ts";
import { checkSaveLoad, runTo, TestContext } from "./testing.ts";

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
