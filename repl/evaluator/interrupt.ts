/**
 * Ctrl-C. The Worker of the host's loop owns SIGINT and sets a word of shared memory, because the main
 * thread may be deep in guest code or in a loop typed at the prompt; both poll it.
 *
 * @module
 */
import { attention, oncePerPress, WORD } from "../../src/xen/world_attention.ts";
import { armLastResort } from "./last_resort.ts";

/** Thrown out of prompt code by ctrl-C. */
export class Interrupted extends Error {
  constructor() {
    super("interrupted");
    this.name = "Interrupted";
  }
}

/** Whether ctrl-C is behind an error: thrown by a device in a script, say, it comes within another. */
export function isInterrupted(error: unknown): boolean {
  return error instanceof Interrupted || (error instanceof Error && isInterrupted(error.cause));
}

/** The word, who sets it, and who is told. */
export class Interrupt {
  /** Not 0 after ctrl-C, until {@linkcode Interrupt.clear}. A slice of a guest ends with it. */
  readonly word: Int32Array<SharedArrayBuffer> = attention.words.subarray(
    WORD.interrupt,
    WORD.interrupt + 1,
  );
  readonly #listeners = new Set<() => void>();
  readonly #onSignal = oncePerPress(() => this.raise());
  #giveBack?: () => void;

  /** Resolves when ctrl-C reaches code that gives the event loop no turn, if SIGINT is taken over. */
  ready: Promise<void> = Promise.resolve();

  /** Takes SIGINT over, until {@linkcode Interrupt.stop}. */
  start(): void {
    if (this.#giveBack) return;
    Deno.addSignalListener("SIGINT", this.#onSignal);
    armLastResort();
    this.#giveBack = attention.ownInterrupt();
    this.ready = attention.owning;
  }

  /** Gives SIGINT back. */
  stop(): void {
    if (!this.#giveBack) return;
    Deno.removeSignalListener("SIGINT", this.#onSignal);
    this.#giveBack();
    this.#giveBack = undefined;
  }

  /** Set while somebody else wants ctrl-C: the line editor. Nothing is interrupted when it says true. */
  claim: () => boolean = () => false;

  /** As if ctrl-C had been pressed. */
  raise(): void {
    if (this.claim()) return this.clear();
    Atomics.store(this.word, 0, 1);
    for (const listener of [...this.#listeners]) listener();
  }

  /** Whether ctrl-C was pressed since the last {@linkcode Interrupt.clear}. */
  get raised(): boolean {
    return Atomics.load(this.word, 0) !== 0;
  }

  /** Whether ctrl-C was pressed; it is forgotten then. */
  take(): boolean {
    return Atomics.exchange(this.word, 0, 0) !== 0;
  }

  /** Forgets a ctrl-C. */
  clear(): void {
    Atomics.store(this.word, 0, 0);
  }

  /** Throws {@linkcode Interrupted} when ctrl-C was pressed. */
  check(): void {
    if (Atomics.load(this.word, 0) !== 0) throw new Interrupted();
  }

  /** Calls `listener` at each ctrl-C that reaches the main thread; returns how to end that. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * What `await` in prompt code waits for: the value, or ctrl-C. It is held here until it settles:
   * the engine reports a collected promise from within garbage collection, and Deno aborts on that.
   */
  hold<T>(value: T | PromiseLike<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const interrupted = () => reject(new Interrupted());
    const end = this.listen(interrupted);
    promise.then(end, end);
    Promise.resolve(value).then(resolve, reject);
    return promise;
  }

  /** `promise`, or a rejection with {@linkcode Interrupted} at ctrl-C. */
  race<T>(promise: Promise<T>): Promise<T> {
    let end = () => {};
    const interrupted = new Promise<never>((_, reject) => {
      end = this.listen(() => reject(new Interrupted()));
    });
    return Promise.race([promise, interrupted]).finally(end);
  }
}
