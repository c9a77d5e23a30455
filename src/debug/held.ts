/**
 * Code of a user's that a domain stands still for: the action of a breakpoint, a device in a script.
 * While it awaits, the domain does not go on; so it cannot await what only comes when it does.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Domain as Inner } from "../xen/domain.ts";

interface Call {
  readonly domain: Inner;
  readonly what: string;
  /** It has returned a promise, and the domain waits for that. */
  waits: boolean;
  done: boolean;
  /** What it began to await before it returned. */
  readonly begun: ((error: Error) => void)[];
}

/** The call that the running code, and whatever it has awaited, belongs to. */
const calls = new AsyncLocalStorage<Call>();

/**
 * Makes a call that a domain stands still for.
 *
 * @param what who it is, for the message: "breakpoint 1 (io)"
 * @param promiseOf what of the result the domain waits for
 */
export function held<T>(
  domain: Inner,
  what: string,
  fn: () => T,
  promiseOf: (result: T) => unknown,
): T {
  const call: Call = { domain, what, waits: false, done: false, begun: [] };
  const done = () => void (call.done = true);
  let promise: unknown;
  try {
    const result = calls.run(call, fn);
    promise = promiseOf(result);
    return result;
  } finally {
    if (promise instanceof Promise) {
      call.waits = true;
      for (const refuse of call.begun.splice(0)) refuse(neverComes(call));
      promise.then(done, done);
    } else done();
  }
}

/** False, and `refuse` is told, if what is to be awaited of a domain would never come. */
export function comes(domain: Inner, refuse: (error: Error) => void): boolean {
  const call = calls.getStore();
  if (!call || call.done || call.domain !== domain) return true;
  if (!call.waits) call.begun.push(refuse);
  else refuse(neverComes(call));
  return !call.waits;
}

/** What is to be awaited of a domain; refused if it would never come. */
export function orNever<T>(domain: Inner, promise: Promise<T>): Promise<T> {
  if (!calls.getStore()) return promise;
  return new Promise((resolve, reject) => {
    if (comes(domain, reject)) promise.then(resolve, reject);
  });
}

const neverComes = ({ domain, what }: Call) =>
  new Error(
    `domain ${domain.name} stands still until ${what} is done: what that awaits of the domain would ` +
      `never come; let it return first, or use a loop over stops()`,
  );
