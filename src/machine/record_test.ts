import { assertEquals, assertThrows } from "@std/assert";
import { decodePlain, encodePlain, RecordError } from "./record.ts";

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

Deno.test("decodePlain() refuses every truncation, and what follows", () => {
  const bytes = encodePlain(sample);
  for (let length = 0; length < bytes.length; length++) {
    assertThrows(() => decodePlain(bytes.slice(0, length)), RecordError);
  }
  assertThrows(() => decodePlain(new Uint8Array([...bytes, 0])), RecordError, "bytes long");
});
