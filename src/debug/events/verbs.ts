/**
 * What the verbs are given beside a kind and a filter.
 *
 * @module
 */
import { abortSignal, callable, options as optionsOf, wrongType } from "../check.ts";
import type { FieldsOf } from "../kinds.ts";
import type { BreakOptions } from "./breakpoint.ts";
import type { Stop } from "./stop.ts";

/** A stop of one kind, with that kind's fields. */
export type StopOf<K extends string> = Stop & { readonly kind: K } & FieldsOf<K>;

/** What a verb that waits takes besides its filter. */
export interface UntilOptions<K extends string = string> {
  /** Which matches are meant; a function may stand in place of these options. */
  readonly predicate?: (stop: StopOf<K>) => boolean;
  /** Ends the wait: it rejects with the signal's reason. What `until` let run is paused. */
  readonly signal?: AbortSignal;
}

/** What a verb asks of each match: true for the one that is meant. */
export type Predicate<K extends string> = (stop: StopOf<K>) => boolean;

/** @see UntilOptions */
const UNTIL_OPTIONS = optionsOf({ predicate: callable, signal: abortSignal });

/** What stands where a predicate or more may be given. */
export function untilOptions<K extends string>(
  kind: K,
  which: Predicate<K> | UntilOptions<K> | undefined,
): { options: BreakOptions; signal?: AbortSignal } {
  if (which !== undefined && !/^(function|object)$/.test(typeof which)) {
    throw wrongType(`${kind} predicate`, "a function, or { predicate, signal }", which);
  }
  const given = typeof which === "function" ? { predicate: which } : which ?? {};
  const { predicate, signal } = UNTIL_OPTIONS(given, kind);
  signal?.throwIfAborted();
  return { options: { predicate } as BreakOptions, signal };
}

/** What stands where an action or more may be given. */
export function breakOptions<S>(
  action: ((stop: S) => unknown) | BreakOptions<S> | undefined,
): BreakOptions {
  if (action === undefined) return {};
  if (typeof action === "function") return { action } as BreakOptions;
  if (typeof action !== "object" || action === null) {
    throw wrongType("action", "a function, or { predicate, hits, once, action }", action);
  }
  return action as BreakOptions;
}
