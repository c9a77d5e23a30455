/**
 * What may be awaited of a domain. Code of a user's that it stands still for (the action of a breakpoint,
 * a device in a script) cannot await what only comes when it goes on; and what is awaited may not come,
 * because the guest went another way.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Stop } from "./events/stop.ts";
import type { Subject } from "./subject.ts";

interface Call {
  readonly domain: Subject;
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
  domain: Subject,
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
export function comes(domain: Subject, refuse: (error: Error) => void): boolean {
  const call = calls.getStore();
  if (!call || call.done || call.domain !== domain) return true;
  if (!call.waits) call.begun.push(refuse);
  else refuse(neverComes(call));
  return !call.waits;
}

/** What is to be awaited of a domain; refused if it would never come. */
export function orNever<T>(domain: Subject, promise: Promise<T>): Promise<T> {
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

/** A verb's guest went another way than asked: it ended, was paused, or stopped somewhere else. */
export class GuestStopped extends Error {
  /** Of the class, for those who do not have it. */
  override readonly name = "GuestStopped";
  /**
   * "poweroff", "reset", "exit", "crash", "hang", "suspend", "watchdog", "soft-reset", "destroyed", "paused", "loaded" (the host was put
   * into a saved state), or "stopped" elsewhere.
   */
  readonly reason: string;
  /** Where it stopped instead. */
  readonly stop?: Stop;

  /** @ignore Thrown by the verbs, or returned by `tryUntil`. */
  constructor(
    message: string,
    reason: string,
    stop?: Stop,
  ) {
    super(message);
    this.reason = reason;
    this.stop = stop;
  }
}
