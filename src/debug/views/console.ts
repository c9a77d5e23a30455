/**
 * A domain's console: what the guest wrote, and what is typed to it.
 *
 * @module
 */
import type { Subject } from "../subject.ts";
import { comes, GuestStopped } from "../waits.ts";
import type { DomainState } from "../../xen/domain.ts";
import { abortSignal, callable, options as optionsOf, someText, textOrBytes } from "../check.ts";
import { counted, INSPECT, shown, throwLate } from "../values.ts";

const SHOWS_OPTIONS = optionsOf({ signal: abortSignal });

/** The text console of a domain: its first serial port, and the debug port E9h. */
export class Console {
  readonly #subject: Subject;

  /** @ignore Found as `console` of a domain. */
  constructor(subject: Subject) {
    this.#subject = subject;
  }

  /** Types text, or raw bytes, to the guest. */
  write(text: string | Uint8Array): void {
    textOrBytes(text, "console.write");
    this.#subject.mustLive("console.write");
    this.#subject.inner.input(typeof text === "string" ? new TextEncoder().encode(text) : text);
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
    this.#subject.mustLive("console.onOutput");
    const { onByte, onOutput, host } = this.#subject.inner;
    const decoder = new TextDecoder();
    const end = () => void (onByte.delete(ownByte), onOutput.delete(own));
    const failed = (error: unknown) => {
      // Told once: what else it was given before it failed fails the same way.
      if (!onByte.has(ownByte) && !onOutput.has(own)) return;
      end();
      throwLate(
        new Error("console.onOutput: the listener failed, and hears no more", { cause: error }),
      );
    };
    const own = (bytes: Uint8Array) => {
      const text = decoder.decode(bytes, { stream: true });
      if (!text) return;
      const done: unknown = listener(text);
      if (done instanceof Promise) done.catch(failed);
      if (!passive) host.yield();
    };
    const ownByte = (byte: number) => own(Uint8Array.of(byte));
    if (passive) onOutput.add(own);
    else onByte.add(ownByte);
    return end;
  }

  /** Output so far: the last of it, if it was more than the domain's `consoleMemory`. */
  get text(): string {
    return new TextDecoder().decode(this.#subject.inner.output.since(0));
  }
  /** Bytes of output that are not in `text` any longer. */
  get dropped(): number {
    return this.#subject.inner.output.dropped;
  }

  /**
   * Resolves when the console's text, since the domain was made, contains `wanted`. It does not
   * start the domain.
   *
   * @param options `signal` ends the wait: it rejects with the signal's reason
   * @throws {Error} if the domain ends first
   * @throws {GuestStopped} if the host is put into a saved state first
   */
  shows(wanted: string, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    let signal: AbortSignal | undefined;
    try {
      someText(wanted, "console.shows");
      signal = SHOWS_OPTIONS(options, "console.shows").signal;
      signal?.throwIfAborted();
    } catch (error) {
      return Promise.reject(error);
    }
    if (this.text.includes(wanted)) return Promise.resolve();
    const tooLate = new Error(`the domain ended before its console showed ${shown(wanted)}`);
    if (this.#subject.inner.ended) return Promise.reject(tooLate);
    const { output, onByte, onState, onLoaded, host, name } = this.#subject.inner;
    const bytes = new TextEncoder().encode(wanted);
    return new Promise((resolve, reject) => {
      const last = bytes.at(-1);
      const refuse = (error: unknown) => {
        end();
        reject(error);
      };
      const own = (byte: number) => {
        if (byte !== last || !output.endsWith(bytes)) return;
        end();
        resolve();
        host.yield();
      };
      const ended = (state: DomainState) => {
        if (state.kind !== "shutdown" && state.kind !== "destroyed") return;
        refuse(tooLate);
      };
      const loaded = () =>
        refuse(
          new GuestStopped(
            `the host was put into a saved state before the console of domain ${name} showed ${
              shown(wanted)
            }`,
            "loaded",
          ),
        );
      const aborted = () => refuse(signal!.reason);
      const end = () => {
        onByte.delete(own);
        onState.delete(ended);
        onLoaded.delete(loaded);
        signal?.removeEventListener("abort", aborted);
      };
      if (!comes(this.#subject, refuse)) return;
      onByte.add(own);
      onState.add(ended);
      onLoaded.add(loaded);
      signal?.addEventListener("abort", aborted);
    });
  }

  /** @ignore */
  [INSPECT](): string {
    const lines = this.text.split("\n"), { dropped } = this;
    const before = dropped ? ` after ${counted(dropped, "byte")} not kept` : "";
    return `console, ${counted(lines.length, "line")}${before}; the last:\n${
      lines.slice(-10).join("\n")
    }`;
  }
}
