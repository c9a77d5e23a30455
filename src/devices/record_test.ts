import { assertEquals, assertThrows } from "@std/assert";
import { decodePlain, encodePlain, loadRecord, RecordError, saveRecord } from "./record.ts";

const sample = {
  zero: 0,
  minus: -0,
  big: 2 ** 53 - 1,
  never: Infinity,
  wide: 0x123456789abcdef0n,
  below: -5n,
  text: "ä\0x",
  flag: true,
  none: null,
  bytes: new Uint8Array([1, 2, 255]),
  list: [1, [false], { a: 1 }],
};

Deno.test("encodePlain() and decodePlain() keep every kind of value", () => {
  const bytes = encodePlain(sample);
  assertEquals(decodePlain(bytes), sample);
  assertEquals(encodePlain(decodePlain(bytes)), bytes);
});

Deno.test("encodePlain() is canonical: the order of keys does not show", () => {
  assertEquals(encodePlain({ a: 1, b: 2 }), encodePlain({ b: 2, a: 1 }));
});

Deno.test("encodePlain() names the path of what is not plain", () => {
  assertThrows(() => encodePlain({ a: [new Map()] }), TypeError, "state.a[0] is a Map");
  assertThrows(() => encodePlain({ a: undefined }), TypeError, "state.a is undefined");
  assertThrows(() => encodePlain({ a: NaN }), TypeError, "state.a is NaN");
});

Deno.test("loadRecord() restores what saveRecord() wrote", () => {
  const one = { name: "x", version: 3, state: structuredClone(sample) };
  const two = { name: "x", version: 3, state: structuredClone({ ...sample, zero: 9 }) };
  loadRecord(two, saveRecord(one));
  assertEquals(two.state, one.state);
  assertEquals(saveRecord(two), saveRecord(one));
});

Deno.test("loadRecord() refuses other names, versions, shapes and every truncation", () => {
  const one = { name: "x", version: 3, state: { a: 1, b: [2] } };
  const block = saveRecord(one);
  const into = (name: string, version: number, state: object) => () =>
    loadRecord({ name, version, state }, block);
  assertThrows(into("y", 3, {}), RecordError, "saved state of x, expected y");
  assertThrows(into("x", 4, {}), RecordError, "has version 3, expected 4");
  assertThrows(into("x", 3, { a: 1 }), RecordError, "state.b is unknown");
  assertThrows(into("x", 3, { a: 1, b: [0], c: 0 }), RecordError, "state.c is missing");
  assertThrows(into("x", 3, { a: "1", b: [] }), RecordError, "state.a is a number, expected a str");
  const kept = { name: "x", version: 3, state: { a: 7, b: [] } };
  for (let length = 0; length < block.length; length++) {
    assertThrows(() => loadRecord(kept, block.slice(0, length)), RecordError);
  }
  assertThrows(() => loadRecord(kept, new Uint8Array([...block, 0])), RecordError, "bytes long");
  assertEquals(kept.state, { a: 7, b: [] });
});
