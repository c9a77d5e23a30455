import { assertEquals, assertThrows } from "@std/assert";
import { Machine } from "../machine/machine.ts";
import { Frames } from "./frames.ts";

Deno.test("Frames hands out frames of zeroes, also ones used before", () => {
  const machine = new Machine({ memory: 16 * 4096 });
  const frames = new Frames(machine, 12, () => 7);
  const first = Array.from({ length: 4 }, () => frames.allocate(1));
  assertEquals(first.toSorted(), [12, 13, 14, 15]);
  assertThrows(() => frames.allocate(1), RangeError, "all 16 frames are taken");
  for (const frame of first) machine.write(frame * 4096 + 4095, Uint8Array.of(1));
  assertEquals(frames.releaseAll(1), 4);
  assertThrows(() => frames.release(first[0]), Error, "free already");
  const again = frames.allocate(2);
  assertEquals(machine.ram.subarray(again * 4096, again * 4096 + 4096).some((b) => b !== 0), false);
});

Deno.test("Frames hands out consecutive frames, and no other after", () => {
  const machine = new Machine({ memory: 16 * 4096 });
  const frames = new Frames(machine, 8, () => 3);
  const first = frames.allocateRun(1, 3);
  assertEquals([first, frames.free, frames.owners.subarray(8, 11)], [
    8,
    5,
    Int16Array.of(1, 1, 1),
  ]);
  const others = Array.from({ length: 5 }, () => frames.allocate(2));
  assertEquals(others.toSorted((a, b) => a - b), [11, 12, 13, 14, 15]);
  frames.release(9);
  frames.release(12);
  assertThrows(() => frames.allocateRun(1, 2), RangeError, "no 2 consecutive");
});

Deno.test("a frame that somebody else uses is free when all have let go of it", () => {
  const machine = new Machine({ memory: 16 * 4096 });
  const frames = new Frames(machine, 8, () => 3);
  const frame = frames.allocate(1);
  frames.hold(frame);
  frames.hold(frame);
  machine.write(frame * 4096, Uint8Array.of(9));
  assertEquals(frames.releaseAll(1), 1);
  assertEquals([frames.free, frames.owners[frame], machine.ram[frame * 4096]], [7, 1, 9]);
  frames.letGo(frame);
  assertEquals([frames.free, frames.uses(frame)], [7, 1]);
  frames.letGo(frame);
  assertEquals([frames.free, frames.owners[frame], machine.ram[frame * 4096]], [8, 0, 0]);
  assertThrows(() => frames.letGo(frame), Error, "not held");
});
