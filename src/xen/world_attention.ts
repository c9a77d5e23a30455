/**
 * When the host's loop has to come up for air. The machine runs on the main thread, and what a guest
 * does costs what it likes: so a Worker looks at the clock and at SIGINT, and sets a word of shared
 * memory. The word is polled wherever guest code passes through TypeScript; what it ends is a slice
 * of host time, which no guest can see.
 *
 * @module
 */
import type { Worker } from "node:worker_threads";

/** The shared words, by index. */
export const WORD = {
  /** Not 0: the event loop wants its turn. */
  due: 0,
  /** Not 0 after SIGINT, until somebody clears it. */
  interrupt: 1,
  /** Not 0 while a guest runs. */
  running: 2,
  /** The Worker's timer ticks. */
  ticking: 3,
  /** The Worker is there. */
  ready: 4,
  /** SIGINTs since the main thread last had a turn of its event loop. */
  unheard: 5,
} as const;

/** Milliseconds of a slice: the event loop has its turn every 5 to 10 ms. */
export const SLICE_MS = 6;

/** SIGINTs so close to each other (ms) are one press. */
const SAME_PRESS_MS = 50;

/**
 * `listener`, called once for a press of ctrl-C: `deno task` hands SIGINT on to a program to which the
 * terminal has given it already.
 */
export function oncePerPress(listener: () => void): () => void {
  let last = -Infinity;
  return () => {
    const now = performance.now(), again = now - last < SAME_PRESS_MS;
    last = now;
    if (!again) listener();
  };
}

/** What the Worker is told. */
export type WorkerMessage =
  | { readonly kind: "start"; readonly words: Int32Array<SharedArrayBuffer> }
  /** Guests run again: the timer is needed. */
  | { readonly kind: "tick" }
  /** It answers, in a moment. */
  | { readonly kind: "turn" }
  /** SIGINT is the Worker's, or the process's default again. */
  | { readonly kind: "interrupt"; readonly own: boolean }
  /** A module's default function is asked, with the words and `data`, what to do at each SIGINT. */
  | { readonly kind: "also"; readonly module: string; readonly data: unknown };

/** What it says: an answer; SIGINT is its own; it heard one, and asks whether anybody is there. */
export type WorkerAnswer = "turn" | "owns" | "heard?";

/** What such a module exports. `before` is how many SIGINTs are unheard already. */
export type AtInterrupt<T> = (words: Int32Array, data: T) => (before: number) => void;

/** The words, and the Worker that sets them. One per process: {@linkcode attention}. */
export class Attention {
  readonly words: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(32));
  #worker: Worker | undefined;
  #starting: Promise<void> | undefined;
  #owns: () => void = () => {};
  /**
   * Resolves when the Worker has SIGINT, or will never have it. It takes turns of this thread's event
   * loop to start: what may run for ever waits for it.
   */
  readonly owning: Promise<void> = new Promise((resolve) => this.#owns = resolve);
  /** The owners of SIGINT there are. */
  #owners = 0;
  #running = false;
  /** Those who wait in {@linkcode Attention.turn}, in order. */
  readonly #waiting: (() => void)[] = [];
  /** Without the Worker the clock says when a slice is over. */
  #until = 0;

  /** The slice is over: the event loop wants its turn. */
  readonly due = (): boolean =>
    this.#running && (Atomics.load(this.words, WORD.due) !== 0 ||
      (Atomics.load(this.words, WORD.ready) === 0 && performance.now() >= this.#until));

  /** A slice begins. */
  begin(): void {
    const { words } = this;
    this.#running = true;
    Atomics.store(words, WORD.due, 0);
    Atomics.store(words, WORD.running, 1);
    if (Atomics.load(words, WORD.ready) === 0) {
      this.#until = performance.now() + SLICE_MS;
      void this.#start();
    } else if (Atomics.load(words, WORD.ticking) === 0) this.#tell({ kind: "tick" });
  }
  /** No guest runs: the timer may rest. */
  end(): void {
    Atomics.store(this.words, WORD.running, 0);
    this.#running = false;
  }

  /**
   * Gives the event loop a turn in which it sees what comes from outside, signals and keys. A mere
   * `setImmediate` keeps Deno's runtime so busy with itself that it looks there once in some thirty
   * turns, 200 ms of slices: waiting for another thread is what makes it look.
   */
  async turn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    const worker = this.#worker;
    if (!worker || Atomics.load(this.words, WORD.ready) === 0) return;
    worker.ref();
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      worker.postMessage({ kind: "turn" } satisfies WorkerMessage);
    });
    if (this.#waiting.length === 0) worker.unref();
  }

  /** Takes SIGINT over: it sets the word and no longer ends the process. Returns how to give it back. */
  ownInterrupt(): () => void {
    if (this.#owners++ === 0) this.#tell({ kind: "interrupt", own: true });
    let owned = true;
    return () => {
      if (owned && --this.#owners === 0) this.#tell({ kind: "interrupt", own: false });
      owned = false;
    };
  }

  /** Has the Worker do more at a SIGINT that is its own: see {@linkcode AtInterrupt}. */
  also(module: URL, data: unknown): void {
    this.#tell({ kind: "also", module: module.href, data });
  }

  /** At once, if it can be: the slice that begins may last until the Worker ends it. */
  #tell(message: WorkerMessage): void {
    if (this.#worker) this.#worker.postMessage(message);
    else void this.#start().then(() => this.#worker?.postMessage(message));
  }

  /** Where a Worker cannot be had (no permission to read its file), the clock has to do. */
  #start(): Promise<void> {
    return this.#starting ??= (async () => {
      try {
        const { Worker } = await import("node:worker_threads");
        const worker = new Worker(new URL("./world_attention_worker.ts", import.meta.url));
        worker.on("message", (message: WorkerAnswer) => {
          if (message === "turn") return this.#waiting.shift()?.();
          Atomics.store(this.words, WORD.unheard, 0);
          this.#owns();
        });
        worker.on("error", () => {
          Atomics.store(this.words, WORD.ready, 0);
          for (const resolve of this.#waiting.splice(0)) resolve();
          this.#owns();
        });
        // It keeps no process alive; said after its listeners, which would.
        worker.unref();
        worker.postMessage({ kind: "start", words: this.words } satisfies WorkerMessage);
        this.#worker = worker;
      } catch {
        this.#owns(); // as said
      }
    })();
  }
}

/** The process's. */
export const attention: Attention = new Attention();
