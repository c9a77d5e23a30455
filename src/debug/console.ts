/**
 * A domain's console: what the guest wrote, and what is typed to it.
 *
 * @module
 */
import type { Domain as Inner } from "../xen/domain.ts";
import { mustLive } from "./gone.ts";
import { callable, someText, textOrBytes } from "./check.ts";
import { INSPECT, shown, throwLate } from "./values.ts";

/** The text console of a domain: its first serial port, and the debug port E9h. */
export class Console {
  readonly #domain: Inner;
  readonly #decoders = new Set<(bytes: Uint8Array) => void>();

  constructor(domain: Inner) {
    this.#domain = domain;
    domain.onOutput.add((bytes) => {
      for (const listener of [...this.#decoders]) listener(bytes);
    });
  }

  /** Types text, or raw bytes, to the guest. */
  write(text: string | Uint8Array): void {
    textOrBytes(text, "console.write");
    mustLive(this.#domain, "console.write");
    this.#domain.input(typeof text === "string" ? new TextEncoder().encode(text) : text);
  }

  /**
   * Calls `listener` with each piece of output from now on; the result ends that. The guest stands
   * behind the instruction that wrote it until all that comes of the call is done, promises it
   * resolves included, so that it comes of it at the same instruction in every run. With `passive`
   * the listener is one that only shows the text, and the guest goes on at once.
   */
  onOutput(
    listener: (text: string) => void,
    { passive = false }: { readonly passive?: boolean } = {},
  ): () => void {
    callable(listener, "console.onOutput");
    mustLive(this.#domain, "console.onOutput");
    const decoder = new TextDecoder();
    const failed = (error: unknown) => {
      // Told once: what else it was given before it failed fails the same way.
      if (!this.#decoders.delete(own)) return;
      throwLate(
        new Error("console.onOutput: the listener failed, and hears no more", { cause: error }),
      );
    };
    const own = (bytes: Uint8Array) => {
      const text = decoder.decode(bytes, { stream: true });
      if (!text) return;
      const done: unknown = listener(text);
      if (done instanceof Promise) done.catch(failed);
      if (!passive) this.#domain.host.yield();
    };
    this.#decoders.add(own);
    return () => void this.#decoders.delete(own);
  }

  /** All output so far. */
  get text(): string {
    const parts = this.#domain.output;
    const bytes = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return new TextDecoder().decode(bytes);
  }

  /**
   * Resolves when the console's text, since the domain was made, contains `wanted`. It does not
   * start the domain.
   */
  shows(wanted: string): Promise<void> {
    try {
      someText(wanted, "console.shows");
    } catch (error) {
      return Promise.reject(error);
    }
    if (this.text.includes(wanted)) return Promise.resolve();
    const tooLate = new Error(`the domain ended before its console showed ${shown(wanted)}`);
    if (this.#domain.ended) return Promise.reject(tooLate);
    return new Promise((resolve, reject) => {
      let tail = this.text.slice(-wanted.length);
      const stop = this.onOutput((text) => {
        tail += text;
        const found = tail.includes(wanted);
        tail = tail.slice(-wanted.length);
        if (!found) return;
        end();
        resolve();
        this.#domain.host.yield();
      }, { passive: true });
      const ended = (state: Inner["state"]) => {
        if (state.kind !== "shutdown" && state.kind !== "destroyed") return;
        end();
        reject(tooLate);
      };
      const end = () => {
        stop();
        this.#domain.onState.delete(ended);
      };
      this.#domain.onState.add(ended);
    });
  }

  [INSPECT](): string {
    const lines = this.text.split("\n");
    return `console, ${lines.length} lines; the last:\n${lines.slice(-10).join("\n")}`;
  }
}
