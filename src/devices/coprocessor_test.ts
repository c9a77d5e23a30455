import { assertEquals } from "@std/assert";
import { Coprocessor } from "./coprocessor.ts";

function fresh() {
  const lines: [number, boolean][] = [];
  const device = new Coprocessor({
    now: () => 0,
    irq: (line, level) => void lines.push([line, level]),
    reschedule: () => {},
  });
  return { device, lines };
}

Deno.test("FERR# requests IRQ 13 once; F0h takes it back and asserts IGNNE# until FERR# goes", () => {
  const { device, lines } = fresh();
  assertEquals([device.raise(), device.raise()], [false, false]);
  assertEquals(lines, [[13, true]]);
  device.write(0xf0);
  assertEquals([lines.at(-1), device.raise()], [[13, false], true]);
  device.quiet();
  assertEquals([device.raise(), lines.at(-1)], [false, [13, true]]);
});

Deno.test("F0h without FERR# asserts nothing, F1h does nothing, IRQ 13 outlives FERR#", () => {
  const { device, lines } = fresh();
  device.write(0xf0);
  assertEquals(device.raise(), false);
  device.write(0xf1);
  device.quiet();
  assertEquals(lines, [[13, false], [13, true]]);
  assertEquals(device.show(), "coprocessor: FERR# off, IRQ 13 requested, IGNNE# off");
});
