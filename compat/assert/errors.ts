import { AssertionError, withNote } from "./error.ts";

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

/** Fails unless `error` is an Error, of the class and with the text asked for. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: ErrorClass<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E {
  if (!(error instanceof Error)) {
    throw new AssertionError(
      withNote(`Expected "error" to be an Error object, but it was ${Deno.inspect(error)}`, msg),
    );
  }
  if (ErrorClass && !(error instanceof ErrorClass)) {
    throw new AssertionError(
      withNote(
        `Expected error to be instance of "${ErrorClass.name}", but was "${error.constructor?.name}" ` +
          `(${error.message})`,
        msg,
      ),
      { cause: error },
    );
  }
  const matches = typeof msgMatches === "string"
    ? error.message.includes(msgMatches)
    : msgMatches?.test(error.message) ?? true;
  if (matches) return;
  const verb = typeof msgMatches === "string" ? "include" : "match";
  throw new AssertionError(withNote(
    `Expected error message to ${verb} ${JSON.stringify(String(msgMatches))}, ` +
      `but got ${JSON.stringify(error.message)}`,
    msg,
  ));
}

interface Expected {
  ErrorClass?: ErrorClass<Error>;
  msgIncludes?: string;
  msg?: string;
}

/** Tells `(fn, ErrorClass, msgIncludes, msg)` from `(fn, msg)`. */
function expectedOf(
  classOrMsg: ErrorClass<Error> | string | undefined,
  msgIncludesOrMsg?: string,
  msg?: string,
): Expected {
  return typeof classOrMsg === "string"
    ? { msg: classOrMsg }
    : { ErrorClass: classOrMsg, msgIncludes: msgIncludesOrMsg, msg };
}

function check(error: unknown, { ErrorClass, msgIncludes, msg }: Expected): unknown {
  if (ErrorClass) assertIsError(error, ErrorClass, msgIncludes, msg);
  return error;
}

/** Fails unless `fn` throws; returns what it threw. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows(
  fn: () => unknown,
  classOrMsg?: ErrorClass<Error> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  const expected = expectedOf(classOrMsg, msgIncludes, msg);
  try {
    fn();
  } catch (error) {
    return check(error, expected);
  }
  throw new AssertionError(withNote("Expected function to throw", expected.msg));
}

/** Fails unless the promise of `fn` rejects; resolves to the reason. A synchronous throw fails. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  classOrMsg?: ErrorClass<Error> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const expected = expectedOf(classOrMsg, msgIncludes, msg);
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch (error) {
    throw new AssertionError(
      withNote("Function throws when expected to reject", expected.msg),
      { cause: error },
    );
  }
  try {
    await promise;
  } catch (error) {
    return check(error, expected);
  }
  throw new AssertionError(withNote("Expected function to reject", expected.msg));
}

/** Fails always. */
export function fail(msg?: string): never {
  throw new AssertionError(withNote("Failed assertion", msg));
}

/** Fails with the note that something is not implemented. */
export function unimplemented(msg?: string): never {
  throw new AssertionError(withNote("Unimplemented", msg));
}

/** Fails because a place was reached that should not be. */
export function unreachable(msg?: string): never {
  throw new AssertionError(withNote("Unreachable", msg));
}
