/**
 * Evaluates what is typed, in this process, by the engine's own inspector: top-level await and
 * redeclaration work, and an expression can be tried without side effects.
 *
 * @module
 */
import { Session } from "node:inspector";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Interrupt, Interrupted } from "./interrupt.ts";
import { HOOKS, prepare } from "./source.ts";

/** What came of an evaluation. */
export type Outcome =
  | { kind: "value"; value: unknown }
  | { kind: "error"; error: unknown }
  | { kind: "incomplete" };

interface RemoteObject {
  type: string;
  objectId?: string;
  unserializableValue?: string;
  value?: unknown;
}

interface Evaluated {
  result: RemoteObject;
  exceptionDetails?: { exception?: RemoteObject; text: string };
}

const GROUP = "xvm";

/** How a look at an expression is evaluated. REPL mode would await a promise that nobody asked for. */
const PEEK = { replMode: false, throwOnSideEffect: true, timeout: 100 } as const;

/** The language of the prompt. One per process: its variables are the process's globals. */
export class Evaluator {
  readonly interrupt: Interrupt;
  readonly #session = new Session();
  #taken: unknown;

  constructor(interrupt: Interrupt = new Interrupt()) {
    this.interrupt = interrupt;
    this.#session.connect();
    Object.defineProperty(globalThis, HOOKS, {
      configurable: true,
      enumerable: false,
      value: Object.freeze({
        check: () => interrupt.check(),
        import: (specifier: unknown) => import(resolveSpecifier(String(specifier))),
        await: (value: unknown) => interrupt.hold(value),
        iterate: (source: AsyncIterable<unknown> | Iterable<unknown>) => iterate(source, interrupt),
        take: (value: unknown) => this.#taken = value,
      }),
    });
  }

  /** Ends the inspector session. */
  close(): void {
    this.#session.disconnect();
  }

  /** Makes names known to prompt code; a `const` or `let` typed there hides them. */
  define(names: Record<string, unknown>): void {
    for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(names))) {
      Object.defineProperty(globalThis, name, { ...descriptor, configurable: true });
    }
  }

  /**
   * Evaluates TypeScript or JavaScript. The value of the last expression is the outcome, and `_` at
   * the prompt; a promise is not awaited unless the code says `await`.
   */
  async evaluate(code: string): Promise<Outcome> {
    const prepared = prepare(code);
    if (prepared.kind === "incomplete") return { kind: "incomplete" };
    if (prepared.kind === "wrong") return { kind: "error", error: prepared.error };
    this.interrupt.clear();
    const running = this.#run(prepared.js, { awaitPromise: true });
    running.catch(() => {}); // it may settle after ctrl-C, when nobody waits any longer
    try {
      const outcome = await this.interrupt.race(running);
      if (outcome.kind === "value" && outcome.value !== undefined) {
        this.define({ _: outcome.value });
      }
      if (outcome.kind === "error") this.define({ _error: outcome.error });
      return outcome;
    } catch (error) {
      if (error instanceof Interrupted) return { kind: "error", error };
      throw error;
    } finally {
      this.interrupt.clear();
    }
  }

  /** The value of an expression that has no side effect, or null when there is none or it throws. */
  async peek(expression: string): Promise<{ value: unknown } | null> {
    const prepared = prepare(`(${expression}\n)`);
    if (prepared.kind !== "ready") return null;
    const js = prepared.js.replaceAll(`${HOOKS}.check();`, "").replaceAll(`${HOOKS}.check(),`, "");
    try {
      const outcome = await this.#run(js, PEEK);
      return outcome.kind === "value" ? { value: outcome.value } : null;
    } catch {
      return null; // the inspector answers a timeout with an error of its own
    }
  }

  /** Names declared at the prompt by `const`, `let` and `class`. */
  async lexicalNames(): Promise<string[]> {
    const { names } = await this.#post<{ names: string[] }>("Runtime.globalLexicalScopeNames", {});
    return names;
  }

  /** Whether prompt code would find something under this name. */
  async isDefined(name: string): Promise<boolean> {
    return name in globalThis || (await this.lexicalNames()).includes(name);
  }

  async #run(expression: string, how: Record<string, unknown>): Promise<Outcome> {
    const reply = await this.#post<Evaluated>("Runtime.evaluate", {
      expression,
      replMode: true,
      objectGroup: GROUP,
      ...how,
    });
    const { result, exceptionDetails } = reply;
    if (!exceptionDetails) return { kind: "value", ...await this.#take(result) };
    const { exception, text } = exceptionDetails;
    return {
      kind: "error",
      error: exception ? (await this.#take(exception)).value : new Error(text),
    };
  }

  /** The value itself behind what the inspector shows of it; boxed, as it may be a promise. */
  async #take(object: RemoteObject): Promise<{ value: unknown }> {
    const { type, objectId, unserializableValue, value } = object;
    if (type === "undefined") return { value: undefined };
    if (objectId === undefined && unserializableValue === undefined) return { value };
    await this.#post("Runtime.callFunctionOn", {
      functionDeclaration: `function (value) { ${HOOKS}.take(value); }`,
      arguments: [objectId !== undefined ? { objectId } : { unserializableValue }],
      executionContextId: 1,
      silent: true,
    });
    const taken = this.#taken;
    this.#taken = undefined;
    await this.#post("Runtime.releaseObjectGroup", { objectGroup: GROUP });
    return { value: taken };
  }

  #post<T>(method: string, params: Record<string, unknown>): Promise<T> {
    return new Promise((done, fail) => {
      this.#session.post(method, params, (error: Error | null, reply?: unknown) => {
        if (error) fail(error);
        else done(reply as T);
      });
    });
  }
}

/** The items of `source`; ctrl-C ends the wait for the next. */
async function* iterate(
  source: AsyncIterable<unknown> | Iterable<unknown>,
  interrupt: Interrupt,
): AsyncGenerator<unknown> {
  const iterator = Symbol.asyncIterator in source
    ? source[Symbol.asyncIterator]()
    : source[Symbol.iterator]();
  let ended = false;
  try {
    for (;;) {
      const item = await interrupt.hold(iterator.next());
      if (item.done) {
        ended = true;
        return item.value;
      }
      yield item.value;
    }
  } finally {
    if (!ended) await iterator.return?.();
  }
}

/** A path as typed at the prompt is relative to the current folder; other names go by the import map. */
export function resolveSpecifier(specifier: string): string {
  if (/^\.{0,2}\//.test(specifier)) return pathToFileURL(resolve(specifier)).href;
  return import.meta.resolve(specifier);
}
