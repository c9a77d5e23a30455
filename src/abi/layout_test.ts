import { assertEquals, assertThrows } from "@std/assert";
import {
  array,
  bits,
  byWidth,
  fieldsOf,
  group,
  layoutOf,
  offsetOf,
  only,
  placed,
  sizeOf,
  struct,
  union,
  View,
} from "./layout.ts";

const inner = struct("inner", { a: "u8", b: "u64" });
const outer = struct("outer", {
  tag: "u16",
  flags: bits("u8", { state: 4, ptr: 1, dir: 1 }),
  inner,
  rows: array(inner, 2),
  word: "ulong",
  wide: "u64a",
  words: array("ulong", { 32: 3, 64: 1 }),
  u: union({ small: "i16", pair: group({ x: "u32", p: "handle" }) }),
  early: only(32, "u32"),
  late: only(64, "u8"),
});

Deno.test("a description lays itself out as gcc does for both widths", () => {
  const offsets = (width: 32 | 64) =>
    Object.fromEntries(fieldsOf(outer, width).map(({ name, offset }) => [name, offset]));
  // 8-byte integers align to 4 in i386's structures, unless they say otherwise.
  assertEquals(offsets(32), {
    tag: 0,
    flags: 2,
    inner: 4,
    rows: 16,
    word: 40,
    wide: 48,
    words: 56,
    u: 68,
    early: 76,
  });
  assertEquals(offsets(64), {
    tag: 0,
    flags: 2,
    inner: 8,
    rows: 24,
    word: 56,
    wide: 64,
    words: 72,
    u: 80,
    late: 96,
  });
  assertEquals([sizeOf(outer, 32), sizeOf(outer, 64)], [80, 104]);
  assertEquals([sizeOf(inner, 32), sizeOf(inner, 64)], [12, 16]);
  assertEquals(offsetOf(outer, "u.pair.p", 32), 72);
  assertEquals(offsetOf(outer, "u.pair.p", 64), 88);
});

Deno.test("a view reads and writes fields, numbers up to 32 bits and bigints beyond", () => {
  for (const width of [32, 64] as const) {
    const view = new View(outer, width);
    const number: number = view.set("tag", 0x1_2345).get("tag");
    assertEquals(number, 0x2345);
    const big: bigint = view.set("word", 7).get("word");
    assertEquals(big, 7n);
    view.set("inner.b", 0x1122_3344_5566_7788n);
    assertEquals(view.get("inner.b"), 0x1122_3344_5566_7788n);
    assertEquals(view.at("inner").get("b"), 0x1122_3344_5566_7788n);
    view.at("rows", 1).set("a", 9);
    assertEquals([view.at("rows", 0).get("a"), view.at("rows", 1).get("a")], [0, 9]);
    view.set("u.small", -2);
    assertEquals([view.get("u.small"), view.get("u.pair.x")], [-2, 0xfffe]);
    view.set("words", -1n, 0);
    assertEquals(view.get("words", 0), width === 32 ? 0xffff_ffffn : 0xffff_ffff_ffff_ffffn);
  }
});

Deno.test("parts of an integer are fields by themselves", () => {
  const view = new View(outer, 32);
  view.set("flags.state", 0x1a).set("flags.dir", 1);
  assertEquals(view.raw[2], 0x2a);
  view.set("flags.state", 3);
  assertEquals([view.get("flags.state"), view.get("flags.ptr"), view.get("flags.dir")], [3, 0, 1]);
  assertEquals(view.get("flags"), 0x23);
  const full = new View(struct("", { word: bits("u32", { low: 1, high: 31 }) }), 64);
  assertEquals(full.set("word.high", 0x7fff_ffff).get("word"), 0xffff_fffe);
  assertEquals(full.get("word.high"), 0x7fff_ffff);
});

Deno.test("setAll() writes what is given, and bytes() shares the view's bytes", () => {
  const bytes = new Uint8Array(100);
  const view = new View(outer, 32, bytes, 8).setAll({ tag: 1, word: 2n, early: undefined });
  assertEquals([bytes[8], bytes[48]], [1, 2]);
  view.bytes("rows")[0] = 5;
  assertEquals([view.bytes("rows").length, bytes[24]], [24, 5]);
  assertEquals(view.at("rows", 0).get("a"), 5);
});

Deno.test("what is not there is refused with its name", () => {
  const view = new View(outer, 32);
  assertThrows(() => view.get("late"), RangeError, "outer has no field late in its 32-bit form");
  assertThrows(() => new View(outer, 64).set("early", 1), RangeError, "64-bit form");
  assertThrows(() => view.at("rows", 2), RangeError, "rows has no element 2; expected 0 to 1");
  assertThrows(() => view.get("words", -1), RangeError, "words has no element -1");
  assertThrows(
    () => new View(inner, 32, new Uint8Array(20), 9),
    RangeError,
    "inner is at 9 to 21; expected within 20",
  );
  // @ts-expect-error: a wrong name does not compile
  assertThrows(() => view.get("tga"), RangeError, "no field tga");
  // @ts-expect-error: nor one of a structure inside
  assertThrows(() => view.get("inner.c"), RangeError);
  // @ts-expect-error: an element is asked for by its number
  assertThrows(() => view.get("words"), RangeError, "no element undefined");
  // @ts-expect-error: a field of 16 bits takes no bigint
  view.set("tag", 1n);
});

Deno.test("a field may be another thing at the other width", () => {
  const call = struct("call", {
    code: byWidth("u16", "u32"),
    to: byWidth(group({ cs: "ulong", eip: "ulong" }), "ulong"),
  });
  assertEquals([sizeOf(call, 32), sizeOf(call, 64)], [12, 16]);
  const narrow = new View(call, 32).set("to.eip", 3n), wide = new View(call, 64).set("to", 3n);
  assertEquals([narrow.raw[8], wide.raw[8]], [3, 3]);
  const code: number = wide.set("code", 0x12345).get("code");
  assertEquals(code, 0x12345);
  assertThrows(() => wide.get("to.eip"), RangeError, "call has no field to.eip in its 64-bit form");
});

Deno.test("placed() takes offsets and size from a manual", () => {
  const table = placed("table", { length: [4, "u32"], at: [9, "u64"] }, 20);
  assertEquals(layoutOf(table, 32), layoutOf(table, 64));
  assertEquals([sizeOf(table, 64), offsetOf(table, "at", 64)], [20, 9]);
  assertEquals(sizeOf(placed("", { one: [1, "u16"] }), 64), 3);
});
