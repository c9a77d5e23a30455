/**
 * A breakpoint: a filter that stays, what is done when it matches, and how often it did.
 *
 * @module
 */
import { wrongType } from "../check.ts";
import { type Filter, filterText, matches } from "./filters.ts";
import type { Kind } from "../kinds.ts";
import type { Occurrence } from "./occurrence.ts";
import { type Response, responseOf, type Stop } from "./stop.ts";
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

/** What a breakpoint is made from. */
export interface BreakRecord {
  /** Number by which the shell knows it, from 1. */
  readonly id: number;
  readonly kind: Kind;
  /** Checked. */
  readonly filter: Filter;
  readonly options: BreakOptions;
  /** Made for one call of a verb, and not listed. */
  readonly temporary: boolean;
  /** Never stops, and its events are copies. */
  readonly traces: boolean;
}

const NONE: Decision = { kind: "none" };
const STOP: Decision = { kind: "respond", response: { kind: "stop" } };

/** A breakpoint, as the debugger holds it. */
export class Break {
  hits = 0;
  #on = true;
  #deleted = false;
  /** It as scripts hold it. */
  readonly shown: Breakpoint;

  constructor(readonly record: BreakRecord, readonly changed: (b: Break) => void) {
    this.shown = new Breakpoint(this);
  }

  get kind(): Kind {
    return this.record.kind;
  }
  get filter(): Filter {
    return this.record.filter;
  }
  /** "breakpoint 1 (io)", for messages. */
  get name(): string {
    const { id, kind, traces } = this.record;
    return `${traces ? "trace" : "breakpoint"} ${id} (${kind})`;
  }
  /** Whether it means what happens to a vCPU: all of them, if it names none. */
  concerns(vcpu: number): boolean {
    const { vcpu: named } = this.filter;
    return named === undefined || named === vcpu;
  }
  /** It has an action. */
  get acts(): boolean {
    return this.record.options.action !== undefined;
  }

  get enabled(): boolean {
    return this.#on && !this.#deleted;
  }
  set enabled(on: boolean) {
    if (this.#deleted) {
      throw new Error(`breakpoint ${this.record.id} (${this.kind}) is deleted`);
    }
    this.#on = on;
    this.changed(this);
  }
  get deleted(): boolean {
    return this.#deleted;
  }
  delete(): void {
    if (this.#deleted) return;
    this.#deleted = true;
    this.changed(this);
  }

  /** Whether an event is one of its own, its predicate asked. Counts. */
  takes(what: Occurrence, fields: Readonly<Record<string, unknown>>): boolean {
    if (!this.enabled || !this.concerns(what.vcpu.id) || !matches(this.filter, fields)) {
      return false;
    }
    const { predicate, hits = 1 } = this.record.options;
    if (predicate) {
      const value: unknown = predicate(what.stop);
      if (value instanceof Promise) {
        value.catch(() => {});
        throw wrongType(`${this.kind}: the predicate`, "true or false at once", value);
      }
      if (!value) return false;
    }
    this.hits++;
    return this.hits >= hits;
  }

  /** What it wants done. */
  act(what: Occurrence): Decision {
    const { options: { once, action }, traces } = this.record;
    if (once) this.delete();
    if (!action) return traces ? NONE : STOP;
    const value = action(what.stop);
    if (value instanceof Promise) {
      if (traces) return { kind: "none", begun: value };
      return { kind: "wait", promise: value.then((v) => responseOf(v, what)) };
    }
    if (traces) return NONE;
    return { kind: "respond", response: responseOf(value, what) ?? { kind: "stop" } };
  }
}

/** Most of a predicate's text that is shown. */
const MAX_TEXT = 100;

/** A breakpoint, a watchpoint or a trace of a domain. */
export class Breakpoint {
  /** Number by which the shell knows it, from 1. */
  readonly id: number;
  /** What it waits for. */
  readonly kind: Kind;
  /** Which events of that kind it means, checked. */
  readonly filter: Filter;
  /** Made for one call of a verb, and not listed. */
  readonly temporary: boolean;
  /** Never stops, and its events are copies. */
  readonly traces: boolean;
  readonly #break: Break;

  /** @ignore Made by the verbs of a domain. */
  constructor(b: Break) {
    ({
      id: this.id,
      kind: this.kind,
      filter: this.filter,
      temporary: this.temporary,
      traces: this.traces,
    } = b.record);
    this.#break = b;
  }

  /** Matches so far. */
  get hits(): number {
    return this.#break.hits;
  }
  set hits(hits: number) {
    this.#break.hits = hits;
  }
  /** Set to false, it is kept but does nothing. */
  get enabled(): boolean {
    return this.#break.enabled;
  }
  set enabled(on: boolean) {
    this.#break.enabled = on;
  }
  /** It is removed, and cannot come back. */
  get deleted(): boolean {
    return this.#break.deleted;
  }
  /** Removes it. */
  delete(): void {
    this.#break.delete();
  }

  /** What else has to hold, as it is shown: the predicate, and from which match on. */
  get condition(): string {
    const { condition, predicate, hits = 1, once } = this.#break.record.options;
    return [
      condition ?? (predicate ? predicate.toString().replace(/\s+/g, " ").slice(0, MAX_TEXT) : ""),
      hits > 1 ? `from match ${hits} on` : "",
      once ? "once" : "",
    ].filter((s) => s).join(", ");
  }

  /** @ignore */
  [INSPECT](): string {
    const state = this.deleted ? "deleted" : this.enabled ? "" : "off";
    return [
      `${this.traces ? "trace" : "breakpoint"} ${this.id}: ${this.kind} ${filterText(this.filter)}`,
      this.condition && `if ${this.condition}`,
      counted(this.hits, "hit"),
      state,
    ].filter((s) => s).join(", ");
  }
}
