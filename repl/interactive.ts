/**
 * The shell at a terminal.
 *
 * @module
 */
import { join } from "node:path";
import { Editor } from "./editor/editor.ts";
import { History } from "./editor/history.ts";
import { Terminal, wantsColors } from "./editor/terminal.ts";
import type { Completion } from "./editor/editor.ts";
import { printStop } from "./commands/format.ts";
import type { DomainView } from "./context.ts";
import { showError } from "./evaluator/show.ts";
import { Session, watchStrays } from "./session.ts";

/** What an interactive session is told. */
export interface InteractiveOptions {
  /** Called with the session before the first prompt. */
  prepare?: (session: Session, shell: Shell) => Promise<void>;
  complete?: (session: Session, text: string, cursor: number) => Promise<Completion>;
}

/** The folder for what is kept between sessions. */
export function cacheFolder(): string {
  const { XVM_CACHE, XDG_CACHE_HOME, HOME } = Deno.env.toObject();
  return XVM_CACHE || join(XDG_CACHE_HOME || join(HOME || "/tmp", ".cache"), "xvm");
}

const DETACH = 0x1d; // ctrl-]

/** A session at a terminal: prompt, output above it, and the guest's console on it. */
export class Shell {
  readonly session: Session;
  readonly terminal: Terminal = new Terminal();
  readonly editor: Editor;
  #again?: string;
  #attached?: DomainView;
  #release?: () => void;
  #supplied = false;
  /** The last text above the prompt came from a guest. */
  #guestLine = false;
  /** Stopped while an input was run. */
  #stopped?: DomainView;
  readonly #listening = new Map<DomainView, () => void>();

  constructor(options: InteractiveOptions = {}) {
    const colors = wantsColors();
    this.session = new Session({
      colors,
      columns: () => this.terminal.columns(),
      print: (text) => this.print(text),
      attach: (domain) => this.attach(domain),
      changed: () => this.#listenAll(),
    });
    this.session.interactive = true;
    const bold = (text: string) => colors ? `\x1b[1m${text}\x1b[22m` : text;
    const { complete } = options;
    this.editor = new Editor({
      screen: this.terminal,
      history: new History(
        join(cacheFolder(), "history"),
        (message) => queueMicrotask(() => this.print(`${message}\n`)),
      ),
      prompt: () => bold(`${this.#promptName()}> `),
      continuation: "  ",
      isWhole: (text) => this.#isWhole(text),
      complete: complete && ((text, cursor) => complete(this.session, text, cursor)),
    });
  }

  #isWhole(text: string): boolean {
    try {
      return this.session.isWhole(text);
    } catch {
      return true; // an unknown command: entering it says so
    }
  }

  #promptName(): string {
    const name = this.#current()?.name ?? (this.session.hypervisor() ? "" : this.session.expected);
    return name ? `xvm ${name}` : "xvm";
  }

  #current(): DomainView | null {
    try {
      return this.session.domain();
    } catch {
      return null;
    }
  }

  /** Prints above the prompt; a line that a guest left open ends first. */
  print(text: string): void {
    if (this.#guestLine) this.editor.display.freshLine();
    this.#guestLine = false;
    this.editor.print(text);
  }

  #printConsole(text: string): void {
    this.#guestLine = true;
    this.editor.print(text);
  }

  /** Shows a domain's console: above the prompt, or raw while attached. */
  listen(domain: DomainView): void {
    if (this.#listening.has(domain)) return;
    const before = domain.console.text;
    if (before) this.#printConsole(before);
    const stop = domain.console.onOutput((text) => {
      if (this.#attached === domain) this.terminal.write(text);
      else this.#printConsole(text);
    });
    this.#listening.set(domain, stop);
    // A guest that runs behind the prompt stops: nobody else would say so.
    domain.inner?.onState.add(({ kind }) => {
      if (!["paused", "shutdown"].includes(kind)) return;
      if (this.session.busy) this.#stopped = domain;
      else queueMicrotask(() => this.#tellStop(domain));
    });
  }

  #tellStop(domain: DomainView): void {
    if (domain.state === "running") return;
    if (domain.stop && domain.stop.kind !== "end") printStop(domain.stop, this.session);
    else if (domain.state !== "paused") {
      this.print(`domain ${domain.id} (${domain.name}) has ended: ${domain.state}\n`);
    }
  }

  /** A stop that came while an input was run, if the input did not wait for it itself. */
  #tellLate(input: string): void {
    const domain = this.#stopped;
    this.#stopped = undefined;
    const own = this.session.ranCommand || /\bawait\b/.test(input);
    if (domain && !own) this.#tellStop(domain);
  }

  #listenAll(): void {
    for (const domain of this.session.hypervisor()?.domains ?? []) this.listen(domain);
  }

  /** Gives the terminal to a domain's console until ctrl-]. */
  async attach(domain: DomainView): Promise<void> {
    this.listen(domain);
    this.editor.display.freshLine();
    this.print(`attached to ${domain.name}; ctrl-] comes back\n`);
    this.editor.display.forget();
    this.#attached = domain;
    const decoder = new TextDecoder();
    await new Promise<void>((resolve) => {
      const release = this.terminal.grab((bytes) => {
        const end = bytes.indexOf(DETACH);
        const typed = end < 0 ? bytes : bytes.subarray(0, end);
        if (typed.length) domain.console.write(decoder.decode(typed, { stream: true }));
        if (end >= 0) this.detach();
      });
      this.#release = () => {
        release();
        resolve();
      };
      void domain.unpause();
    });
    this.#attached = undefined;
    this.terminal.write("\r\n");
  }

  /** Takes the terminal back from the console, as ctrl-] does. */
  detach(): void {
    this.#release?.();
    this.#release = undefined;
  }

  /** Ends the session from outside, at the prompt or at the console. */
  finish(code: number): void {
    this.session.exit(code);
    this.detach();
    this.editor.cancel();
  }

  /** Reads and runs inputs until the session ends; resolves to the exit status. */
  async run(prepare?: InteractiveOptions["prepare"]): Promise<number> {
    const { session, editor, terminal } = this;
    const { interrupt } = session.evaluator;
    interrupt.start();
    interrupt.claim = () => {
      if (editor.active) editor.press("ctrl-c");
      return editor.active;
    };
    const unwatch = watchStrays((error) => this.print(`${showError(error, session)}\n`));
    terminal.resized = () => {
      terminal.renew();
      editor.refresh();
    };
    terminal.start((bytes) => editor.feed(bytes), () => editor.press("ctrl-d"));
    const restore = this.#takeConsole();
    try {
      await prepare?.(session, this);
      while (session.exitCode === null) await this.#turn();
    } finally {
      restore();
      unwatch();
      terminal.stop();
      interrupt.stop();
    }
    return session.exitCode ?? 0;
  }

  async #turn(): Promise<void> {
    const { session, editor } = this;
    this.#listenAll();
    const reading = editor.read();
    if (!this.#supplied) {
      this.#supplied = true;
      // The first prompt stands; what it will need comes while its user thinks.
      setTimeout(() => void session.supply(null).catch(() => {}), 20);
    }
    const input = await reading;
    if (input.kind === "end") return session.exit(session.exitCode ?? 0);
    if (input.kind === "cancelled") {
      session.pauseRunning();
      return;
    }
    const text = input.text.trim() ? input.text : this.#again ?? "";
    if (!text) return;
    this.#stopped = undefined;
    const { again } = await session.enter(text);
    this.#again = again;
    await session.refresh();
    this.#tellLate(text);
  }

  /** `console.log` of prompt code and callbacks goes above the prompt. */
  #takeConsole(): () => void {
    const saved = { ...console };
    const print = (...values: unknown[]) =>
      this.print(
        `${values.map((it) => typeof it === "string" ? it : this.session.show(it)).join(" ")}\n`,
      );
    for (const name of ["log", "info", "debug", "warn", "error"] as const) console[name] = print;
    return () => Object.assign(console, saved);
  }
}
