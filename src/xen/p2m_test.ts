import { assertEquals, assertThrows } from "@std/assert";
import type { NestedFormat } from "../hvm/ops.ts";
import { Machine } from "../machine/machine.ts";
import { FRAME, FRAME_FLAG } from "../machine/state.ts";
import { Frames } from "./frames.ts";
import { ALL, P2M } from "./p2m.ts";

/** Entries whose low bits are read, write and execute. */
const format: NestedFormat = {
  table: (address) => BigInt(address) | 7n,
  page: (address, { read, write, execute }) =>
    BigInt(address | (read ? 1 : 0) | (write ? 2 : 0) | (execute ? 4 : 0)),
  address: (entry) => entry & 7n ? Number(entry & ~0xfffn) : undefined,
  pointer: (root) => BigInt(root),
  flags: () => [],
};

function made() {
  const machine = new Machine({ memory: 64 * 4096 });
  const frames = new Frames(machine, 4, () => 12345);
  const p2m = new P2M(machine, frames, 1, format, 16);
  /** The entry that a processor would come to; 0 where a table is missing. */
  const entry = (guestFrame: number): bigint => {
    const view = new DataView(machine.ram.buffer);
    let table = p2m.root;
    for (let level = 3; level > 0; level--) {
      const at = table + Math.floor(guestFrame / 512 ** level) % 512 * 8;
      const next = format.address(view.getBigUint64(at, true));
      if (next === undefined) return 0n;
      table = next;
    }
    return view.getBigUint64(table + guestFrame % 512 * 8, true);
  };
  return { p2m, entry };
}

Deno.test("map() puts guest frames into the tables, far ones too", () => {
  const { p2m, entry } = made();
  for (const [guest, machine] of [[0, 40], [15, 41], [512 * 512 * 3 + 7, 42]]) {
    p2m.map(guest, machine);
    assertEquals([p2m.machineFrame(guest), entry(guest)], [machine, BigInt(machine * 4096) | 7n]);
  }
  assertEquals([p2m.machineFrame(1), entry(1)], [-1, 0n]);
});

Deno.test("what is unmapped is gone from the tables the processor walks", () => {
  const { p2m, entry } = made();
  p2m.map(3, 40);
  p2m.unmap(3);
  assertEquals([p2m.machineFrame(3), entry(3)], [-1, 0n]);
});

Deno.test("protect() changes what the tables allow", () => {
  const { p2m, entry } = made();
  p2m.map(3, 40);
  p2m.protect(3, { read: true, write: false, execute: true });
  assertEquals(entry(3), BigInt(40 * 4096) | 5n);
  p2m.protect(3, ALL);
  assertEquals(entry(3), BigInt(40 * 4096) | 7n);
  assertThrows(() => p2m.protect(4, ALL), RangeError, "0x4");
});

Deno.test("what was derived from a frame is given up before it leaves the map", () => {
  const { p2m } = made(), { frameTable } = p2m.machine;
  // As a shadow does with a table of the guest's.
  p2m.onChange.add((guest) => p2m.markDerived(guest, false));
  const isDerived = (frame: number) =>
    (frameTable[frame * (FRAME.size / 4)] & FRAME_FLAG.derived) !== 0;
  for (const change of [() => p2m.unmap(3), () => p2m.map(3, 41)]) {
    p2m.map(3, 40);
    p2m.markDerived(3, true);
    assertEquals(isDerived(40), true);
    change();
    assertEquals([isDerived(40), isDerived(41)], [false, false]);
  }
});

Deno.test("a frame at several places is found at the first of them that is left", () => {
  const { p2m } = made();
  for (const guest of [3, 9, 0x9000]) p2m.map(guest, 40);
  const first = [p2m.guestFrame(40)];
  for (const guest of [3, 0x9000, 9]) {
    p2m.unmap(guest);
    first.push(p2m.guestFrame(40));
  }
  assertEquals([first, p2m.size], [[3, 9, 9, -1], 0x9001]);
});
