import {
  assert,
  assertAlmostEquals,
  assertArrayIncludes,
  assertEquals,
  AssertionError,
  assertObjectMatch,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  equal,
} from "@std/assert";

Deno.test("equal() compares by structure", () => {
  assert(equal({ a: [1n, new Uint8Array([1, 2])] }, { a: [1n, new Uint8Array([1, 2])] }));
  assert(!equal(new Uint8Array([1]), new Uint8Array([2])));
  assert(!equal(new Uint8Array([1]), [1]));
  assert(!equal({ a: undefined }, {}));
  assert(!equal([1, 2], [1, 2, 3]));
  assert(equal(new Map([[{ k: 1 }, 1]]), new Map([[{ k: 1 }, 1]])));
  assert(!equal(new Map([["a", 1]]), new Map([["a", 2]])));
  assert(equal(new Set([[1], [2]]), new Set([[2], [1]])));
  assert(!equal(new Set([1]), new Set([2])));
  assert(equal(NaN, NaN) && equal(0, -0) && !equal(1, 1n) && !equal(null, undefined));
  assert(!equal(new Error("a"), new Error("b")));
});

Deno.test("equal() ends on a cycle", () => {
  const ring = () => {
    const value: Record<string, unknown> = { n: 1 };
    value.self = value;
    return value;
  };
  assert(equal(ring(), ring()));
});

Deno.test("assertEquals() shows the lines that differ", () => {
  const error = assertThrows(
    () => assertEquals({ rip: 0x10n, rax: 1n }, { rip: 0x11n, rax: 1n }, "after a step"),
    AssertionError,
    "after a step",
  );
  assertStringIncludes(error.message, "-     rip: 16n");
  assertStringIncludes(error.message, "+     rip: 17n");
});

Deno.test("assertThrows() fails when nothing, or something else, is thrown", async () => {
  assertThrows(() => assertThrows(() => 1), AssertionError, "to throw");
  const wrong = () => {
    throw new TypeError("a");
  };
  assertThrows(() => assertThrows(wrong, RangeError), AssertionError, "RangeError");
  assertThrows(() => assertThrows(wrong, TypeError, "b"), AssertionError, '"b"');
  await assertRejects(() => Promise.reject(new TypeError("late")), TypeError, "late");
  await assertRejects(
    () => assertRejects(() => Promise.resolve(1)),
    AssertionError,
    "to reject",
  );
});

Deno.test("the smaller assertions hold and fail", () => {
  assertObjectMatch({ a: { b: 1, c: 2 }, d: 3 }, { a: { b: 1 } });
  assertThrows(() => assertObjectMatch({ a: 1 }, { a: 2 }), AssertionError);
  assertArrayIncludes([{ a: 1 }, { b: 2 }], [{ b: 2 }]);
  assertThrows(() => assertArrayIncludes([1], [2]), AssertionError, "missing");
  assertAlmostEquals(0.1 + 0.2, 0.3);
  assertThrows(() => assertAlmostEquals(1, 2), AssertionError);
  assertThrows(() => assertStrictEquals<unknown>([], []), AssertionError, "reference");
});
