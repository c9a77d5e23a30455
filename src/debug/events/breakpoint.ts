/**
 * A breakpoint: a filter that stays, what is done when it matches, and how often it did.
 *
 * @module
 */
import { wrongType } from "../check.ts";
import { type Filter, filterText, matches } from "./filters.ts";
import type { Kind } from "../kinds.ts";
import { type Response, Stop } from "./stop.ts";
import { counted, INSPECT } from "../values.ts";

/** What breakpoints are told beside their filter. */
export interface BreakOptions<S = Stop> {
  /** Asked where the filter matches; false: not this one. It is synchronous. */
  readonly predicate?: (stop: S) => boolean;
  /** What the predicate asks, in words, for lists; the function's own text if not given. */
  readonly condition?: string;
  /** Only from the so-manieth match on; 1 if not given. */
  readonly hits?: number;
  /** Gone after it acted once. */
  readonly once?: boolean;
  /**
   * Called at each match. What it returns decides: nothing stops the domain; an answer of the stop
   * (`stop.skip()`), "continue", "skip" or "deny" lets it go on. If it returns a promise the domain
   * stands still until that is settled.
   */
  readonly action?: (stop: S) => unknown;
}

/** What a match leads to. */
export type Decision =
  /** What a trace has begun, and nobody waits for. */
  | { readonly kind: "none"; readonly begun?: Promise<unknown> }
  | { readonly kind: "respond"; readonly response: Response }
  | { readonly kind: "wait"; readonly promise: Promise<Response | undefined> };

/** Most of a predicate's text that is shown. */
const MAX_TEXT = 100;

const NONE: Decision = { kind: "none" };
const STOP: Decision = { kind: "respond", response: { kind: "stop" } };

/** A breakpoint, a watchpoint or a trace of a domain. */
export class Breakpoint {
  /** Matches so far. */
  hits = 0;
  #enabled = true;
  #deleted = false;

  /** @ignore Made by the verbs of a domain. */
  constructor(
    /** Number by which the shell knows it, from 1. */
    readonly id: number,
    /** What it waits for. */
    readonly kind: Kind,
    /** Which events of that kind it means, checked. */
    readonly filter: Filter,
    private readonly options: BreakOptions,
    /** Made for one call of a verb, and not listed. */
    readonly temporary: boolean,
    /** Never stops, and its events are copies. */
    readonly traces: boolean,
    private readonly changed: (breakpoint: Breakpoint) => void,
  ) {}

  /** Set to false, it is kept but does nothing. */
  get enabled(): boolean {
    return this.#enabled && !this.#deleted;
  }
  set enabled(on: boolean) {
    if (this.#deleted) throw new Error(`breakpoint ${this.id} (${this.kind}) is deleted`);
    this.#enabled = on;
    this.changed(this);
  }
  /** It is removed, and cannot come back. */
  get deleted(): boolean {
    return this.#deleted;
  }
  /** Removes it. */
  delete(): void {
    if (this.#deleted) return;
    this.#deleted = true;
    this.changed(this);
  }

  /** What else has to hold, as it is shown: the predicate, and from which match on. */
  get condition(): string {
    const { condition, predicate, hits = 1, once } = this.options;
    return [
      condition ?? (predicate ? predicate.toString().replace(/\s+/g, " ").slice(0, MAX_TEXT) : ""),
      hits > 1 ? `from match ${hits} on` : "",
      once ? "once" : "",
    ].filter((s) => s).join(", ");
  }

  /** @ignore Whether an event is one of its own, its predicate asked. Counts. */
  takes(stop: Stop, fields: Readonly<Record<string, unknown>>): boolean {
    if (!this.enabled || !matches(this.filter, fields)) return false;
    const { predicate } = this.options;
    if (predicate) {
      const value: unknown = predicate(stop);
      if (value instanceof Promise) {
        value.catch(() => {});
        throw wrongType(`${this.kind}: the predicate`, "true or false at once", value);
      }
      if (!value) return false;
    }
    this.hits++;
    return this.hits >= (this.options.hits ?? 1);
  }

  /** @ignore It has an action. */
  get acts(): boolean {
    return this.options.action !== undefined;
  }
  /** @ignore What it wants done. */
  act(stop: Stop): Decision {
    if (this.options.once) this.delete();
    const { action } = this.options;
    if (!action) return this.traces ? NONE : STOP;
    const value = action(stop);
    if (value instanceof Promise) {
      if (this.traces) return { kind: "none", begun: value };
      return { kind: "wait", promise: value.then((v) => Stop.response(v, stop)) };
    }
    if (this.traces) return NONE;
    return { kind: "respond", response: Stop.response(value, stop) ?? { kind: "stop" } };
  }

  /** @ignore */
  [INSPECT](): string {
    const state = this.#deleted ? "deleted" : this.#enabled ? "" : "off";
    return [
      `${this.traces ? "trace" : "breakpoint"} ${this.id}: ${this.kind} ${filterText(this.filter)}`,
      this.condition && `if ${this.condition}`,
      counted(this.hits, "hit"),
      state,
    ].filter((s) => s).join(", ");
  }
}
