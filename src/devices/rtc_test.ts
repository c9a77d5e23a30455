import { assert, assertEquals } from "@std/assert";
import { Rtc } from "./rtc.ts";
import { checkSaveLoad, runTo, TestContext } from "./testing.ts";

const unixTime = Date.UTC(2026, 10, 21, 23, 59, 58) / 1000; // a Saturday
function made(memory = 256 << 20): { rtc: Rtc; context: TestContext } {
  const context = new TestContext();
  return { context, rtc: new Rtc(context, { unixTime, memory }) };
}
function read(rtc: Rtc, index: number): number {
  rtc.write(0x70, 1, index);
  return rtc.read(0x71, 1);
}
function write(rtc: Rtc, index: number, value: number): void {
  rtc.write(0x70, 1, index);
  rtc.write(0x71, 1, value);
}
const clock = (rtc: Rtc) => [9, 8, 7, 6, 4, 2, 0].map((index) => read(rtc, index));

Deno.test("Rtc keeps guest time in BCD and 24 hours", () => {
  const { rtc, context } = made();
  assertEquals(clock(rtc), [0x26, 0x11, 0x21, 7, 0x23, 0x59, 0x58]);
  assertEquals(read(rtc, 0x32), 0x20);
  runTo(rtc, context, 2e9);
  assertEquals(clock(rtc), [0x26, 0x11, 0x22, 1, 0x00, 0x00, 0x00]);
  context.time = 2e9 + 86400e9 * 40;
  assertEquals(clock(rtc), [0x27, 0x01, 0x01, 6, 0x00, 0x00, 0x00]);
  assertEquals(rtc.time, unixTime + 2 + 86400 * 40);
});

Deno.test("Rtc takes and gives binary and 12 hours", () => {
  const { rtc, context } = made();
  write(rtc, 0x0b, 0x84); // SET, binary, 12 hours
  write(rtc, 4, 0x80 | 12);
  write(rtc, 2, 59);
  write(rtc, 0, 59);
  for (const [index, value] of [[7, 31], [8, 12], [9, 99]]) write(rtc, index, value);
  write(rtc, 0x32, 19);
  runTo(rtc, context, 5e9);
  assertEquals(read(rtc, 0), 59, "SET holds the clock");
  write(rtc, 0x0b, 0x04);
  runTo(rtc, context, 6e9);
  assertEquals(clock(rtc), [99, 12, 31, 6, 0x81, 0, 0]);
  runTo(rtc, context, 6e9 + 11 * 3600e9);
  assertEquals(clock(rtc), [0, 1, 1, 7, 12, 0, 0]);
  assertEquals(read(rtc, 0x32), 20);
});

Deno.test("Rtc announces updates by UIP", () => {
  const { rtc, context } = made();
  runTo(rtc, context, 997_000_000);
  assertEquals(read(rtc, 0x0a), 0x26);
  runTo(rtc, context, 998_000_000);
  assertEquals(read(rtc, 0x0a), 0xa6);
  runTo(rtc, context, 1_000_000_000);
  assertEquals(read(rtc, 0x0a), 0x26);
});

Deno.test("Rtc raises IRQ 8 at updates until register C is read", () => {
  const { rtc, context } = made();
  write(rtc, 0x0b, 0x12);
  runTo(rtc, context, 1e9);
  assertEquals(context.edges, [[8, true, 1e9]]);
  assertEquals(read(rtc, 0x0c) & 0x90, 0x90);
  assert(!context.lines[8]);
  assertEquals(read(rtc, 0x0c), 0);
  runTo(rtc, context, 3e9);
  assertEquals(context.edges.length, 3);
});

Deno.test("Rtc raises periodic interrupts at the selected rate", () => {
  const { rtc, context } = made();
  write(rtc, 0x0b, 0x42);
  for (const [rate, hertz] of [[6, 1024], [15, 2], [1, 256], [2, 128], [3, 8192]]) {
    write(rtc, 0x0a, 0x20 | rate);
    read(rtc, 0x0c);
    const from = context.time;
    let count = 0;
    while (rtc.deadline() <= from + 1e9) {
      runTo(rtc, context, rtc.deadline());
      if (read(rtc, 0x0c) & 0x40) count++;
    }
    context.time = from + 1e9;
    assertEquals(count, hertz, `rate ${rate}`);
  }
  write(rtc, 0x0a, 0x20);
  assertEquals(rtc.deadline(), Infinity);
});

Deno.test("Rtc raises the alarm at its time, with wildcards each hour", () => {
  const { rtc, context } = made();
  write(rtc, 5, 0xff);
  write(rtc, 3, 0x00);
  write(rtc, 1, 0x05);
  write(rtc, 0x0b, 0x22);
  const alarms: number[] = [];
  for (let second = 1; second <= 7300; second++) {
    runTo(rtc, context, second * 1e9);
    if (read(rtc, 0x0c) & 0x20) alarms.push(second);
  }
  assertEquals(alarms, [7, 3607, 7207]);
});

Deno.test("Rtc remembers an alarm that passed while nobody looked", () => {
  const { rtc, context } = made();
  write(rtc, 5, 0x12);
  write(rtc, 3, 0x30);
  write(rtc, 1, 0x00);
  read(rtc, 0x0c);
  context.time = 11 * 3600e9;
  assertEquals(read(rtc, 0x0c) & 0x20, 0);
  context.time = 14 * 3600e9;
  assertEquals(read(rtc, 0x0c) & 0x20, 0x20);
});

Deno.test("Rtc tells the memory's size", () => {
  const word = (rtc: Rtc, index: number) => read(rtc, index) | read(rtc, index + 1) << 8;
  const { rtc } = made(256 << 20);
  assertEquals(word(rtc, 0x15), 640);
  assertEquals(word(rtc, 0x17), 0xffff);
  assertEquals(word(rtc, 0x34), 240 * 16);
  // 5 GB: 3 of them below 4 GB, 2 above.
  const large = new Rtc(new TestContext(), { unixTime: 1e9, memory: 5 * 2 ** 30 });
  assertEquals([word(large, 0x34), word(large, 0x5b)], [(3 * 1024 - 16) * 16, 2048 * 16]);
  assertEquals(word(made(16 << 20).rtc, 0x30), 15 * 1024);
  assertEquals(read(rtc, 0x0d), 0x80);
});

Deno.test("Rtc's memory survives a reset and its interrupts do not", () => {
  const { rtc } = made();
  write(rtc, 0x40, 0x99);
  write(rtc, 0x0b, 0x72);
  rtc.reset();
  assertEquals([read(rtc, 0x40), read(rtc, 0x0b)], [0x99, 0x02]);
});

Deno.test("Rtc survives save and load", () => {
  checkSaveLoad((context) => new Rtc(context, { unixTime }), {
    rounds: 40,
    // Random bytes rarely reach a register through the index port.
    extra: (rtc, random) => write(rtc, random.next(12), random.next(256)),
  });
});

Deno.test("Rtc tells when port 70h masks and unmasks NMI", () => {
  const masks: boolean[] = [];
  const rtc = new Rtc(new TestContext(), {
    unixTime,
    nmiMask: (masked) => void masks.push(masked),
  });
  for (const index of [0x0d, 0x8d, 0x8f, 0x0f, 0x80]) rtc.write(0x70, 1, index);
  rtc.reset();
  assertEquals(masks, [true, false, true, false]);
});
