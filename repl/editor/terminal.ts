import { writeOut } from "../output.ts";
import type { Screen } from "./display.ts";

/**
 * The process's terminal: one reader of standard input for the whole session, raw mode, and who gets
 * the bytes. Signals stay on in raw mode, so that ctrl-C reaches the Worker that owns SIGINT even
 * while this thread is busy; only {@linkcode Terminal.grab} turns them off, for a guest's console.
 */
export class Terminal implements Screen {
  #consumer: (bytes: Uint8Array) => void = () => {};
  #ended?: () => void;
  #raw: "off" | "signals" | "all" = "off";
  #onSize = () => {};

  /** Whether both ends are a terminal. */
  static get available(): boolean {
    return Deno.stdin.isTerminal() && Deno.stdout.isTerminal();
  }

  /** Begins: bytes go to `consumer`; `ended` is called when the terminal is gone. */
  start(consumer: (bytes: Uint8Array) => void, ended: () => void): void {
    this.#consumer = consumer;
    this.#ended = ended;
    this.#mode("signals");
    this.write("\x1b[?2004h"); // pasted text comes marked
    this.#onSize = () => this.resized();
    Deno.addSignalListener("SIGWINCH", this.#onSize);
    Deno.addSignalListener("SIGCONT", this.#onSize);
    void this.#read();
  }

  /** Called when the size changed, or the process was continued after ctrl-Z. */
  resized: () => void = () => {};

  /** Gives the terminal back as it was. */
  stop(): void {
    if (this.#raw === "off") return;
    this.write("\x1b[?2004l");
    this.#mode("off");
    Deno.removeSignalListener("SIGWINCH", this.#onSize);
    Deno.removeSignalListener("SIGCONT", this.#onSize);
  }

  /** Enters the raw mode again, after another program or a stop changed it. */
  renew(): void {
    const mode = this.#raw;
    this.#raw = "off";
    this.#mode(mode);
  }

  /** Every byte, ctrl-C too, goes to `consumer` until the function returned is called. */
  grab(consumer: (bytes: Uint8Array) => void): () => void {
    const before = this.#consumer;
    this.#consumer = consumer;
    this.#mode("all");
    this.write("\x1b[?2004l");
    return () => {
      this.#consumer = before;
      this.#mode("signals");
      this.write("\x1b[?2004h");
    };
  }

  write(text: string): void {
    writeOut(text);
  }

  columns(): number {
    try {
      return Math.max(20, Deno.consoleSize().columns);
    } catch {
      return 80;
    }
  }

  rows(): number {
    try {
      return Math.max(4, Deno.consoleSize().rows);
    } catch {
      return 24;
    }
  }

  #mode(mode: "off" | "signals" | "all"): void {
    if (mode === this.#raw) return;
    Deno.stdin.setRaw(mode !== "off", { cbreak: mode === "signals" });
    this.#raw = mode;
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(4096);
    for (;;) {
      const length = await Deno.stdin.read(buffer).catch(() => null);
      if (length === null) break;
      this.#consumer(buffer.slice(0, length));
    }
    this.#ended?.();
  }
}

/** Whether colours are wanted on this output. */
export function wantsColors(): boolean {
  return !Deno.noColor && Deno.stdout.isTerminal() && Deno.env.get("TERM") !== "dumb";
}
