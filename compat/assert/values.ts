import { diff, show } from "./diff.ts";
import { equal } from "./equal.ts";
import { AssertionError, withNote } from "./error.ts";

// deno-lint-ignore no-explicit-any
type AnyConstructor = new (...args: any[]) => any;

/** Fails when `expr` is falsy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Fails when `expr` is truthy. */
export function assertFalse(expr: unknown, msg?: string): asserts expr is false {
  if (expr) throw new AssertionError(withNote("Expected value to be falsy", msg));
}

/** Fails unless the two are deeply equal, and shows where they differ. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (equal(actual, expected)) return;
  throw new AssertionError(
    `${withNote("Values are not equal", msg)}.\n\n${diff(actual, expected)}`,
  );
}

/** Fails when the two are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!equal(actual, expected)) return;
  throw new AssertionError(withNote(`Expected actual: ${show(actual)} not to be equal`, msg));
}

/** Fails unless `Object.is(actual, expected)`. */
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  msg?: string,
): asserts actual is T {
  if (Object.is(actual, expected)) return;
  const same = show(actual) === show(expected);
  const what = same
    ? "Values have the same structure but are not reference-equal"
    : "Values are not strictly equal";
  throw new AssertionError(
    `${withNote(what, msg)}.\n\n${same ? show(actual) : diff(actual, expected)}`,
  );
}

/** Fails when `Object.is(actual, expected)`. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!Object.is(actual, expected)) return;
  throw new AssertionError(
    withNote(`Expected "actual" to not be strictly equal to: ${show(actual)}`, msg),
  );
}

/** Fails when `actual` is null or undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  if (actual !== undefined && actual !== null) return;
  throw new AssertionError(
    withNote(`Expected actual: "${actual}" to not be null or undefined`, msg),
  );
}

/** Fails unless `actual` is an instance of `expectedType`. */
export function assertInstanceOf<T extends AnyConstructor>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is InstanceType<T> {
  if (actual instanceof expectedType) return;
  const given = actual === null
    ? "null"
    : typeof actual === "object"
    ? `"${actual.constructor?.name ?? "Object"}"`
    : `type "${typeof actual}"`;
  throw new AssertionError(
    withNote(`Expected object to be an instance of "${expectedType.name}" but was ${given}`, msg),
  );
}

/** Fails when `actual` is an instance of `unexpectedType`. */
export function assertNotInstanceOf<A, T>(
  actual: A,
  // deno-lint-ignore no-explicit-any
  unexpectedType: abstract new (...args: any[]) => T,
  msg?: string,
): asserts actual is Exclude<A, T> {
  assertFalse(
    actual instanceof unexpectedType,
    withNote(`Expected object to not be an instance of "${unexpectedType.name}"`, msg),
  );
}

/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (actual.includes(expected)) return;
  throw new AssertionError(
    withNote(`Expected actual: "${actual}" to contain: "${expected}"`, msg),
  );
}

/** Fails unless every item of `expected` is deeply equal to some item of `actual`. */
export function assertArrayIncludes<T>(
  actual: ArrayLike<T>,
  expected: ArrayLike<T>,
  msg?: string,
): void {
  const items = Array.from(actual);
  const missing = Array.from(expected).filter((want) => !items.some((item) => equal(item, want)));
  if (missing.length === 0) return;
  throw new AssertionError(withNote(
    `Expected actual: "${show(actual)}" to include: "${show(expected)}"`,
    `${msg ? `${msg}; ` : ""}missing: ${show(missing)}`,
  ));
}

/** Fails unless `actual` matches the regular expression. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (expected.test(actual)) return;
  throw new AssertionError(withNote(`Expected actual: "${actual}" to match: "${expected}"`, msg));
}

/** Fails when `actual` matches the regular expression. */
export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void {
  if (!expected.test(actual)) return;
  throw new AssertionError(
    withNote(`Expected actual: "${actual}" to not match: "${expected}"`, msg),
  );
}

/** Fails unless `actual` has at least the properties of `expected`, deeply. */
export function assertObjectMatch(
  // deno-lint-ignore no-explicit-any
  actual: Record<PropertyKey, any>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  assertEquals(pick(actual, expected), expected, msg);
}

/** The part of `value` that `shape` names. */
// deno-lint-ignore no-explicit-any
function pick(value: any, shape: any): any {
  // deno-lint-ignore no-explicit-any
  const nested = (x: any): boolean => typeof x === "object" && x !== null;
  if (!nested(value) || !nested(shape) || value.constructor !== shape.constructor) return value;
  if (Array.isArray(shape)) {
    return value.map((item: unknown, i: number) => i in shape ? pick(item, shape[i]) : item);
  }
  if (![Object.prototype, null].includes(Object.getPrototypeOf(shape))) return value;
  const keys = Reflect.ownKeys(shape).filter((key) => key in value);
  return Object.fromEntries(keys.map((key) => [key, pick(value[key], shape[key])]));
}

/** Fails unless the two differ by at most `tolerance` (relative 1e-7 when it is not given). */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance?: number,
  msg?: string,
): void {
  if (Object.is(actual, expected)) return;
  const limit = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  if (Math.abs(expected - actual) <= limit) return;
  throw new AssertionError(withNote(
    `Expected actual: "${actual}" to be close to "${expected}": ` +
      `delta "${Math.abs(expected - actual)}" is greater than "${limit}"`,
    msg,
  ));
}

function ordered<T>(holds: boolean, actual: T, relation: string, expected: T, msg?: string) {
  if (holds) return;
  throw new AssertionError(withNote(`Expect ${show(actual)} ${relation} ${show(expected)}`, msg));
}

/** Fails unless `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  ordered(actual > expected, actual, ">", expected, msg);
}

/** Fails unless `actual >= expected`. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void {
  ordered(actual >= expected, actual, ">=", expected, msg);
}

/** Fails unless `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  ordered(actual < expected, actual, "<", expected, msg);
}

/** Fails unless `actual <= expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void {
  ordered(actual <= expected, actual, "<=", expected, msg);
}
