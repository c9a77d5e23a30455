/**
 * Stand-in for `jsr:@std/assert` where JSR cannot be reached: the same names, signatures and
 * meaning for the part of the package that xvm uses. See design.md section 6 and README.md.
 *
 * @module
 */
export { equal } from "./equal.ts";
export { AssertionError } from "./error.ts";
export {
  assert,
  assertAlmostEquals,
  assertArrayIncludes,
  assertEquals,
  assertExists,
  assertFalse,
  assertGreater,
  assertGreaterOrEqual,
  assertInstanceOf,
  assertLess,
  assertLessOrEqual,
  assertMatch,
  assertNotEquals,
  assertNotInstanceOf,
  assertNotMatch,
  assertNotStrictEquals,
  assertObjectMatch,
  assertStrictEquals,
  assertStringIncludes,
} from "./values.ts";
export {
  assertIsError,
  assertRejects,
  assertThrows,
  fail,
  unimplemented,
  unreachable,
} from "./errors.ts";
