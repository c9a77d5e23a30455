import { assertEquals, assertThrows } from "@std/assert";
import {
  bytes,
  flag,
  linearAddress,
  oneOf,
  options,
  pairOf,
  physicalAddress,
  rangeOf,
  toAddress,
  toSize,
  u16,
  whole,
  word,
} from "./check.ts";
import { shown } from "./values.ts";

Deno.test("checks give values in the form the inside works with", () => {
  assertEquals(u16(0x3f8n, "port"), 0x3f8);
  assertEquals(word(32)(-1, "eax"), 0xffff_ffffn);
  assertEquals(toAddress(-1n, "a"), 0xffff_ffff_ffff_ffffn);
  assertEquals(linearAddress(-4096, "a"), 0xffff_ffff_ffff_f000n);
  assertEquals(bytes([1, 255], "b"), Uint8Array.of(1, 255));
  assertEquals(rangeOf(u16)([1, 2], "r"), [1, 2]);
  assertEquals(toSize("1.5G", "m"), 1.5 * 2 ** 30);
  assertEquals(options({ a: flag, b: u16 })({ a: true, b: undefined }, "o"), { a: true });
});

Deno.test("another type is a TypeError, a value that cannot be a RangeError, both in words", () => {
  const refuses: [() => unknown, typeof TypeError | typeof RangeError, string][] = [
    [() => u16("5", "port"), TypeError, 'port: a whole number from 0 to 0xffff was expected, "5"'],
    [() => u16(0x10000, "port"), RangeError, "port: a whole number from 0 to 0xffff was expected"],
    [() => u16(1.5, "port"), RangeError, "1.5 was given"],
    [() => u16(NaN, "port"), RangeError, "NaN was given"],
    [() => whole(1, 16)(17, "vcpus"), RangeError, "from 1 to 16 was expected, 17"],
    [() => word(8)(256, "al"), RangeError, "fits in 8 bits was expected, 256"],
    [() => word(8)(-129, "al"), RangeError, "fits in 8 bits"],
    [() => word(64)(2 ** 60, "rax"), TypeError, "a bigint or a safe integer"],
    [() => linearAddress(1n << 47n, "a"), RangeError, "a canonical address"],
    [() => physicalAddress(1n << 52n, "a"), RangeError, "below 2^52"],
    [() => toAddress(2 ** 53, "a"), RangeError, "no safe integer; write addresses above 2^53"],
    [() => toAddress(null, "a"), TypeError, "null was given"],
    [() => bytes("AB", "bytes"), TypeError, "new TextEncoder().encode()"],
    [() => bytes([1, -1], "bytes"), RangeError, "bytes[1]: a whole number"],
    [() => bytes(new Uint16Array(2), "bytes"), TypeError, "Uint16Array of 4 bytes was given"],
    [() => pairOf(u16)([2, 1], "port"), RangeError, "[first, last] in this order"],
    [() => pairOf(u16)([2], "port"), TypeError, "[first, last] was expected, [2]"],
    [() => oneOf("hap", "shadow")("x", "paging"), RangeError, '"hap" or "shadow" was expected'],
    [() => oneOf(1, 2, 4)("1", "size"), TypeError, "1, 2 or 4 was expected"],
    [() => options({ port: u16 })({ prot: 1 }, "io"), TypeError, 'did you mean "port"?'],
    [() => options({ port: u16 })([], "io"), TypeError, "io: an object was expected"],
    [() => options({})({ x: 1 }, "io"), TypeError, "it has no keys"],
    // Names that every object has are no keys.
    [() => options({ port: u16 })({ constructor: 1 }, "io"), TypeError, 'no "constructor"'],
  ];
  for (const [refused, error, message] of refuses) assertThrows(refused, error, message);
});

Deno.test("shown() is short, whatever is given", () => {
  assertEquals(shown("x".repeat(1_000_000)).length, 63);
  assertEquals(shown(new Array(1000).fill(0)), "an array of 1000");
  assertEquals(shown([1, "a"]), '[1, "a"]');
  assertEquals(shown(Object.create(null)), "an object");
  assertEquals(shown(new Map()), "an object of class Map");
  assertEquals(shown(10n), "0xa");
});
