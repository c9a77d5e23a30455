import type { Completion } from "../editor/editor.ts";

/** What the worker is asked. */
export interface Question {
  id: number;
  /** Earlier inputs, and the text being completed. */
  earlier: readonly string[];
  text: string;
  cursor: number;
}

/** What it answers. */
export interface Answer extends Completion {
  id: number;
}

/** The compiler takes seconds to read the sources the first time; nobody waits longer at a prompt. */
const PATIENCE = 20_000;

/** Completion by TypeScript's language service, in a Worker that starts when it is first needed. */
export class TypeCompleter {
  #worker?: Worker;
  #next = 1;
  readonly #waiting = new Map<number, (answer: Completion) => void>();

  /** @param patience milliseconds after which there is no completion */
  constructor(private readonly patience = PATIENCE) {}

  /** Starts the worker, if it does not run yet. */
  start(): Worker {
    if (this.#worker) return this.#worker;
    const worker = new Worker(new URL("./types_worker.ts", import.meta.url), {
      type: "module",
      name: "types",
    });
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      this.#waiting.get(data.id)?.({ from: data.from, items: data.items });
      this.#waiting.delete(data.id);
    };
    worker.onerror = (event) => {
      event.preventDefault(); // completion is a help, not a duty
      for (const answer of this.#waiting.values()) answer({ from: 0, items: [] });
      this.#waiting.clear();
      this.#worker = undefined;
    };
    return this.#worker = worker;
  }

  /** Ends the worker. */
  stop(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  /** The completions at `cursor` of `text`, after the earlier inputs. */
  complete(earlier: readonly string[], text: string, cursor: number): Promise<Completion> {
    const id = this.#next++;
    const worker = this.start();
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve({ from: cursor, items: [] }), this.patience);
      this.#waiting.set(id, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      worker.postMessage({ id, earlier, text, cursor } satisfies Question);
    });
  }
}
