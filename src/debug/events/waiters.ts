/**
 * Who waits for a domain to stand still, and what they are told.
 *
 * @module
 */
import type { Subject } from "../subject.ts";
import { throwLate } from "../values.ts";
import { comes, GuestStopped } from "../waits.ts";
import type { Stop } from "./stop.ts";

/** Why the domain came to stand still, as the verbs see it. */
export type WaitOutcome =
  | { readonly kind: "stop"; readonly stop: Stop }
  | { readonly kind: "paused" }
  /** The host was put into a saved state. */
  | { readonly kind: "loaded" }
  | { readonly kind: "ended"; readonly stop: Stop };

/** Somebody who waits for the domain to stop. */
type Waiter = (outcome: WaitOutcome) => void;

/** What ends a wait, and what is done then. */
interface Abort {
  readonly signal: AbortSignal;
  readonly then: () => void;
}

export class Waiters {
  readonly #waiters = new Set<Waiter>();
  /** Told each time the domain has come to stand still: at a stop, paused (null), or ended. */
  readonly onStop: Set<(stop: Stop | null) => void> = new Set();
  /** A predicate or an action threw: the next waiter gets it. */
  #failure: { error: unknown } | undefined;

  constructor(readonly subject: Subject) {}

  /** Somebody's code failed: whoever is told next gets it. */
  failed(error: unknown): void {
    this.#failure = { error };
  }

  tell(outcome: WaitOutcome): void {
    for (const waiter of [...this.#waiters]) waiter(outcome);
    const stop = "stop" in outcome ? outcome.stop : null;
    for (const listener of [...this.onStop]) queueMicrotask(() => listener(stop));
    if (this.#failure) {
      // Nobody waited.
      throwLate(this.#failure.error);
      this.#failure = undefined;
    }
  }

  /** What comes of the domain, once `start` has let it run. */
  outcome(start: () => void, abort?: Abort): Promise<WaitOutcome> {
    return new Promise((resolve, reject) => {
      abort?.signal.throwIfAborted();
      const leave = () => {
        this.#waiters.delete(waiter);
        abort?.signal.removeEventListener("abort", aborted);
      };
      const aborted = () => {
        leave();
        reject(abort!.signal.reason);
        abort!.then();
      };
      const waiter: Waiter = (outcome) => {
        leave();
        const failure = this.#failure;
        this.#failure = undefined;
        if (failure) reject(failure.error);
        else resolve(outcome);
      };
      const refuse = (error: unknown) => {
        leave();
        reject(error);
      };
      if (!comes(this.subject, refuse)) return;
      this.#waiters.add(waiter);
      abort?.signal.addEventListener("abort", aborted);
      try {
        start();
      } catch (error) {
        refuse(error);
      }
    });
  }

  /** What a verb says that did not get what it waited for. */
  stopped(outcome: WaitOutcome, wanted: string): GuestStopped {
    const { name } = this.subject;
    if (outcome.kind === "paused") {
      return new GuestStopped(`domain ${name} was paused before "${wanted}" came`, "paused");
    }
    if (outcome.kind === "loaded") {
      return new GuestStopped(
        `the host was put into a saved state before "${wanted}" came in domain ${name}`,
        "loaded",
      );
    }
    const { stop } = outcome;
    if (outcome.kind === "ended") {
      const { reason, detail } = stop as unknown as { reason: string; detail: string };
      return new GuestStopped(
        `domain ${name} ended before "${wanted}" came: ${reason} (${detail})`,
        reason,
        stop,
      );
    }
    return new GuestStopped(
      `domain ${name} stopped elsewhere before "${wanted}" came: ${stop.describe()}`,
      "stopped",
      stop,
    );
  }
}
