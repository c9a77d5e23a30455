import { assert, assertEquals } from "@std/assert";
import { timeOfTick } from "./device.ts";
import { Pit, pitFrequency } from "./pit.ts";
import { checkSaveLoad, runTo, TestContext } from "./testing.ts";

function start(control: number, count: number): { pit: Pit; context: TestContext } {
  const context = new TestContext();
  const pit = new Pit(context);
  program(pit, control, count);
  return { pit, context };
}
function program(pit: Pit, control: number, count: number): void {
  pit.write(0x43, 1, control);
  pit.write(0x40 + (control >> 6), 1, count & 0xff);
  pit.write(0x40 + (control >> 6), 1, count >> 8);
}
const at = (tick: number) => timeOfTick(tick, pitFrequency);
/** Counter 0's output (IRQ 0) as the ticks at which it changes. */
function edges(context: TestContext): [number, boolean][] {
  return context.edges.map(([, level, time]) => [
    Math.round(time * pitFrequency / 1e9),
    level,
  ]);
}
function count(pit: Pit, counter = 0): number {
  pit.write(0x43, 1, counter << 6);
  const low = pit.read(0x40 + counter, 1);
  return low | pit.read(0x40 + counter, 1) << 8;
}

Deno.test("Pit mode 0 rises once, N + 1 clocks after the count is written", () => {
  const { pit, context } = start(0x30, 100);
  runTo(pit, context, at(5000));
  assertEquals(edges(context), [[101, true]]);
  assertEquals(count(pit), (100 - (5000 - 1)) & 0xffff);
});

Deno.test("Pit mode 0 falls again when a new count is begun", () => {
  const { pit, context } = start(0x30, 10);
  runTo(pit, context, at(20));
  pit.write(0x40, 1, 5);
  assertEquals(context.lines[0], false);
  pit.write(0x40, 1, 0);
  runTo(pit, context, at(100));
  assertEquals(edges(context), [[11, true], [20, false], [26, true]]);
});

Deno.test("Pit mode 2 is low for the last clock of each cycle", () => {
  const { pit, context } = start(0x34, 50);
  runTo(pit, context, at(151));
  assertEquals(edges(context), [
    [0, true],
    [50, false],
    [51, true],
    [100, false],
    [101, true],
    [150, false],
    [151, true],
  ]);
});

Deno.test("Pit mode 2 takes a new count at the end of the cycle", () => {
  const { pit, context } = start(0x34, 50);
  runTo(pit, context, at(60));
  pit.write(0x40, 1, 20);
  pit.write(0x40, 1, 0);
  context.edges.length = 0;
  runTo(pit, context, at(145));
  assertEquals(edges(context), [
    [100, false],
    [101, true],
    [120, false],
    [121, true],
    [140, false],
    [141, true],
  ]);
});

Deno.test("Pit mode 3 is a square wave, one clock longer high when the count is odd", () => {
  const { pit, context } = start(0x36, 5);
  runTo(pit, context, at(11));
  assertEquals(edges(context), [
    [0, true],
    [4, false],
    [6, true],
    [9, false],
    [11, true],
  ]);
  const even = start(0x36, 8);
  const counts: number[] = [];
  for (let tick = 1; tick <= 9; tick++) {
    runTo(even.pit, even.context, at(tick));
    counts.push(count(even.pit));
  }
  assertEquals(counts, [8, 6, 4, 2, 8, 6, 4, 2, 8]);
});

Deno.test("Pit mode 4 strobes for one clock", () => {
  const { pit, context } = start(0x38, 7);
  runTo(pit, context, at(100));
  assertEquals(edges(context), [[0, true], [8, false], [9, true]]);
});

Deno.test("Pit modes 1 and 5 wait for the gate, and start afresh at each trigger", () => {
  for (const [mode, during, expected] of [[1, 20, false], [5, 31, false]] as const) {
    const { pit, context } = start(0xb0 | mode << 1, 30);
    runTo(pit, context, at(10));
    assert(pit.output(2), "high before the trigger");
    pit.write(0x61, 1, 1);
    runTo(pit, context, at(10 + during));
    assertEquals(pit.output(2), expected);
    assertEquals(pit.read(0x61, 1) >> 5 & 1, 0);
    runTo(pit, context, at(10 + 40));
    assert(pit.output(2));
    pit.write(0x61, 1, 0);
    pit.write(0x61, 1, 1);
    runTo(pit, context, at(50 + during));
    assertEquals(pit.output(2), expected);
  }
});

Deno.test("Pit's gate pauses modes 0 and 4", () => {
  const { pit, context } = start(0xb0, 1000);
  runTo(pit, context, at(100));
  assertEquals(count(pit, 2), 1000);
  pit.write(0x61, 1, 1);
  runTo(pit, context, at(600));
  assertEquals(count(pit, 2), 500);
  pit.write(0x61, 1, 0);
  runTo(pit, context, at(5000));
  assertEquals(count(pit, 2), 500);
  pit.write(0x61, 1, 1);
  runTo(pit, context, at(5499));
  assert(!pit.output(2));
  runTo(pit, context, at(5500));
  assert(pit.output(2));
});

Deno.test("Pit counts in BCD", () => {
  const { pit, context } = start(0x35, 0x1000);
  runTo(pit, context, at(2));
  assertEquals(count(pit), 0x999);
  program(pit, 0x31, 0);
  runTo(pit, context, at(4));
  assertEquals(count(pit), 0x9999);
});

Deno.test("Pit latches count and status by the read-back command, status first", () => {
  const { pit, context } = start(0x34, 0x1234);
  runTo(pit, context, at(1 + 0x34));
  pit.write(0x43, 1, 0xc2);
  runTo(pit, context, at(1000));
  assertEquals([pit.read(0x40, 1), pit.read(0x40, 1), pit.read(0x40, 1)], [0xb4, 0x00, 0x12]);
  pit.write(0x43, 1, 0x34);
  pit.write(0x43, 1, 0xe2);
  assertEquals(pit.read(0x40, 1), 0xf4, "null count: programmed but not loaded");
});

Deno.test("Pit runs at exactly 1193182 Hz, however late", () => {
  const { pit, context } = start(0x34, 0);
  context.time = 1e9 * 86400 * 30;
  pit.run(context.time);
  const ticks = pitFrequency * 86400 * 30;
  assertEquals(count(pit), 65536 - (ticks - 1) % 65536);
  const next = pit.deadline();
  assert(next > context.time && next < context.time + 6e7, `${next}`);
});

Deno.test("Pit port 61h toggles the refresh bit and keeps the speaker's bits", () => {
  const { pit, context } = start(0x34, 0);
  pit.write(0x61, 1, 0x02);
  const seen = new Set<number>();
  for (let i = 0; i < 4; i++, context.time += 15085) seen.add(pit.read(0x61, 1) & 0x1f);
  assertEquals(seen, new Set([0x02, 0x12]));
});

Deno.test("Pit survives save and load", () => {
  checkSaveLoad((context) => new Pit(context), { rounds: 40 });
});

Deno.test("Pit: SERR# and IOCHK# stay in port 61h and request an NMI until they are disabled", () => {
  const requests: boolean[] = [];
  const pit = new Pit(new TestContext(), { nmi: (level) => void requests.push(level) });
  const status = () => pit.read(0x61, 1) & 0xcf;
  pit.check("iochk");
  pit.check("serr");
  assertEquals([status(), requests], [0xc0, [true]]);
  pit.write(0x61, 1, 8);
  assertEquals([status(), requests], [0x88, [true]]);
  pit.write(0x61, 1, 0x0c);
  assertEquals([status(), requests], [0x0c, [true, false]]);
  pit.check("iochk");
  pit.check("serr");
  pit.write(0x61, 1, 0);
  assertEquals([status(), requests], [0, [true, false]], "disabled: they were not seen");
  pit.check("serr");
  assert(pit.show().startsWith("pit: 1193182 Hz, NMI requested"));
  pit.reset();
  assertEquals([status(), requests], [0, [true, false, true, false]]);
});
