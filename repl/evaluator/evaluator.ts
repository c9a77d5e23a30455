/**
 * Evaluates what is typed, in this process: top-level await and redeclaration work, and, by the engine's
 * own inspector, an expression can be tried without side effects. The inspector never awaits anything:
 * it holds a promise so weakly that a garbage collection at the wrong moment ends the process.
 *
 * @module
 */
import { Session } from "node:inspector";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Interrupt, Interrupted } from "./interrupt.ts";
import { HOOKS } from "./rewrite.ts";
import { checked, plainExpression, prepare } from "./source.ts";
import { type Declaration, Variables } from "./variables.ts";

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

/** Evaluates in the global scope, and not in that of the caller. */
const globalEval = eval;

/** The language of the prompt. One per process: its variables are the process's globals. */
export class Evaluator {
  readonly interrupt: Interrupt;
  readonly variables: Variables = new Variables();
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
        shadow: this.variables.shadow,
        define: (functions: Record<string, unknown>) => this.variables.define(functions),
        import: (specifier: unknown, options?: ImportCallOptions) =>
          import(resolveSpecifier(String(specifier)), options),
        exports: exportsOf,
        code: (by: unknown, code: unknown) =>
          by === globalEval && typeof code === "string" ? checked(code) : code,
        functionBy: (by: unknown) => by === Function ? this.#function : by,
        await: (value: unknown) => interrupt.hold(value),
        iterate: (source: AsyncIterable<unknown> | Iterable<unknown>) => iterate(source, interrupt),
        take: (value: unknown) => this.#taken = value,
      }),
    });
  }

  /** Ends the inspector session, and forgets the variables. */
  close(): void {
    this.variables.clear();
    this.#session.disconnect();
  }

  /** Makes names known to prompt code; what is declared there hides them. */
  define(names: Record<string, unknown>): void {
    this.variables.provide(names);
  }

  /**
   * Evaluates TypeScript or JavaScript. The value of the last expression is the outcome, and `_` at
   * the prompt; a promise is not awaited unless the code says `await`. `source` is the text's name in
   * stack traces.
   */
  async evaluate(code: string, source = "prompt"): Promise<Outcome> {
    const prepared = prepare(code);
    if (prepared.kind === "incomplete") return { kind: "incomplete" };
    if (prepared.kind === "wrong") return { kind: "error", error: prepared.error };
    await this.interrupt.ready;
    if (this.interrupt.take()) return { kind: "error", error: new Interrupted() };
    const giveBack = this.variables.declare(prepared.declarations);
    try {
      const running = globalEval(`${this.#within(prepared)}\n//# sourceURL=${source}`);
      // Held here until it settles, whether or not anybody waits for it any longer.
      running.catch?.(() => {});
      const { value } = prepared.isAsync ? await this.interrupt.race(running) : running;
      if (value !== undefined) this.define({ _: value });
      return { kind: "value", value };
    } catch (error) {
      if (!(error instanceof Interrupted)) this.define({ _error: error });
      return { kind: "error", error };
    } finally {
      giveBack();
      this.interrupt.clear();
    }
  }

  /** The expression `js` with what prompt code sees before the global object. */
  #within({ js, declarations }: { js: string; declarations?: readonly Declaration[] }): string {
    return this.variables.shadows(declarations) ? `with(${HOOKS}.shadow){${js}}` : js;
  }

  /** `Function` for prompt code: what it makes asks for ctrl-C, and sees the prompt's variables. */
  readonly #function = (...texts: unknown[]): unknown => {
    const body = texts.pop() ?? "";
    const text = `(function anonymous(${texts.join(",")}\n) {\n${body}\n})`;
    const js = checked(text);
    if (js === text) return Function(...texts.map(String), String(body));
    return globalEval(this.#within({ js }));
  };

  /** The value of an expression that has no side effect, or null when there is none or it throws. */
  async peek(expression: string): Promise<{ value: unknown } | null> {
    const js = plainExpression(expression);
    if (js === null) return null;
    try {
      const { result, exceptionDetails } = await this.#post<Evaluated>("Runtime.evaluate", {
        expression: this.#within({ js }),
        objectGroup: GROUP,
        throwOnSideEffect: true,
        timeout: 100,
      });
      return exceptionDetails ? null : await this.#take(result);
    } catch {
      return null; // the inspector answers a timeout with an error of its own
    }
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

/** A module, of which these names are wanted: all that it has. */
function exportsOf(module: object, specifier: string, names: string[]): object {
  const missing = names.find((name) => !(name in module));
  if (missing === undefined) return module;
  throw new SyntaxError(`${specifier} has no export ${missing}`);
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
