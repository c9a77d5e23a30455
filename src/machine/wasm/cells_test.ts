import { assertEquals, assertThrows } from "@std/assert";
import { LINK } from "../system/segmentation/descriptor.ts";
import { CPU, EXTENSION_AREA, RECORDS_START, TLB, TLB_LIST, V } from "../state.ts";
import { SVMC } from "../svm/layout.ts";
import type { Cpu } from "../cpu.ts";
import { cell64 } from "../linkage.ts";
import { VMXC } from "../vmx/layout.ts";
import { F } from "../float/cells.ts";
import { areaOf, cells, fieldsOf, span } from "./cells.ts";

Deno.test("cells lie one behind the other, aligned, and inside their area", () => {
  const c = cells({ name: "a", start: 0x100, end: 0x120 }, { one: 4, two: 8, block: 16 });
  assertEquals({ ...c }, { one: 0x100, two: 0x108, block: 0x110 });
  assertEquals(span(c, "two", "block"), { start: 0x108, size: 24 });
  const small = { name: "small", start: 0, end: 12 };
  assertThrows(() => cells(small, { one: 8, two: 8 }), Error, "small: its cells take 16 bytes");
});

Deno.test("an area is filled once, and a block of it is always the same area", () => {
  const area = { name: "a", start: 0, end: 64 };
  const c = cells(area, { block: 32, other: 8 });
  assertThrows(() => cells(area, { x: 4 }), Error, "a: other cells lie there already");
  cells(areaOf(c, "block"), { x: 4 });
  assertThrows(() => cells(areaOf(c, "block"), { y: 4 }), Error, "block: other cells lie there");
});

Deno.test("names and widths of cells are part of their types", () => {
  // @ts-expect-error: no such register
  assertEquals(CPU.csBase, undefined);
  // @ts-expect-error: nor among those that are got and set by name
  const name: Parameters<Cpu["get"]>[0] = "csBase";
  assertEquals(name in CPU, false);
  // @ts-expect-error: an i64 there would reach into the next cell
  cell64(V.abort);
  cell64(CPU.cr3);
});

Deno.test("no two cells of memory 0 overlap", () => {
  const inside = (list: Parameters<typeof fieldsOf>[0]) => fieldsOf(list);
  const blocks = new Set(["link", "float"]);
  const all = [
    ...inside(CPU),
    ...inside(V).filter((f) => !blocks.has(f.name)),
    ...[LINK, F, VMXC, SVMC].flatMap(inside),
    { name: "fills", at: TLB_LIST.fills, width: 4 * TLB_LIST.maxFills },
    { name: "tables", at: TLB_LIST.tables, width: 4 * TLB_LIST.maxTables },
    { name: "tlb", at: TLB.start, width: TLB.classes * TLB.classSize },
    { name: "records", at: RECORDS_START, width: 0 },
  ].sort((a, b) => a.at - b.at);
  for (let n = 1; n < all.length; n++) {
    const before = all[n - 1], next = all[n];
    assertEquals(before.at + before.width <= next.at, true, `${before.name} and ${next.name}`);
  }
  assertEquals(EXTENSION_AREA.svm.end <= RECORDS_START, true);
});
