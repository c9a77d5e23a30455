/**
 * The shell at a terminal.
 *
 * @module
 */
import { join } from "node:path";
import { counted } from "../src/builder/errors.ts";
import { Editor } from "./editor/editor.ts";
import { History } from "./editor/history.ts";
import { Terminal, wantsColors } from "./editor/terminal.ts";
import type { Completion } from "./editor/editor.ts";
import { printStop } from "./commands/format.ts";
import { CommandError, type DomainView } from "./context.ts";
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
/** Characters of a console that are kept while another has the terminal. */
const MAX_HELD = 65536;
const length = (parts: readonly string[]) => parts.reduce((sum, part) => sum + part.length, 0);

/** A session at a terminal: prompt, output above it, and the guest's console on it. */
export class Shell {
  readonly session: Session;
  readonly terminal: Terminal = new Terminal();
  readonly editor: Editor;
  #again?: string;
  #attached?: DomainView;
  #release?: () => void;
  #supplied = false;
  /** Console text that has not been shown yet: in one go, a turn of the event loop later. */
  readonly #unshown = new Map<DomainView, string[]>();
  /** Characters of it that are not kept, because another console has the terminal. */
  readonly #dropped = new Map<DomainView, number>();
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
    this.#showConsoles();
    this.editor.print(text);
  }

  /** Takes console text; a guest that floods its console costs one drawing a turn. */
  #takeOutput(domain: DomainView, text: string): void {
    if (this.#attached === domain) {
      return this.editor.display.pass(text, domain);
    }
    const waiting = this.#unshown.get(domain);
    if (!waiting) {
      this.#unshown.set(domain, [text]);
      if (this.#unshown.size === 1) setImmediate(() => this.#showConsoles());
    } else if (!this.#attached || length(waiting) < MAX_HELD) waiting.push(text);
    else this.#dropped.set(domain, (this.#dropped.get(domain) ?? 0) + text.length);
  }

  #showConsoles(): void {
    if (this.#attached) return;
    for (const [domain, parts] of this.#unshown) {
      this.#unshown.delete(domain);
      this.editor.print(parts.join(""), domain);
      const dropped = this.#dropped.get(domain);
      if (!dropped) continue;
      this.#dropped.delete(domain);
      this.editor.print(
        `(${
          counted(dropped, "more character")
        } of ${domain.name}'s console came while another had the ` +
          `terminal; its console.text has them)\n`,
      );
    }
  }

  /** Shows a domain's console: above the prompt, or raw while attached. */
  listen(domain: DomainView): void {
    if (this.#listening.has(domain)) return;
    const before = domain.console.text;
    if (before) this.#takeOutput(domain, before);
    const output = (text: string) => this.#takeOutput(domain, text);
    this.#listening.set(domain, domain.console.onOutput(output, { passive: true }));
    // A guest that runs behind the prompt stops: nobody else would say so.
    domain.onStop?.(() => {
      if (this.#attached === domain) this.#endAttachment(domain);
      else if (this.session.busy) this.#stopped = domain;
      else this.#tellStop(domain);
    });
  }

  #tellStop(domain: DomainView): void {
    if (domain.state === "running") return;
    this.#showConsoles();
    if (domain.stop && domain.stop.kind !== "end") printStop(domain.stop, this.session);
    else if (domain.state !== "paused") {
      this.print(`domain ${domain.id} (${domain.name}) has ended: ${domain.state}\n`);
    }
  }

  #takeStopped(): DomainView | undefined {
    const domain = this.#stopped;
    this.#stopped = undefined;
    return domain;
  }

  /** A stop that came while an input was run, if the input did not wait for it itself. */
  #tellLate(input: string): void {
    const domain = this.#takeStopped();
    const own = this.session.ranCommand || /\bawait\b/.test(input);
    if (domain && !own) this.#tellStop(domain);
  }

  #listenAll(): void {
    for (const domain of this.session.hypervisor()?.domains ?? []) this.listen(domain);
  }

  /** Nothing more will come from a domain that stands still: its user gets the prompt back. */
  #endAttachment(domain: DomainView): void {
    if (domain.state === "running") return;
    this.#stopped = domain;
    this.detach();
  }

  /** Gives the terminal to a domain's console until ctrl-], or until the domain stops or ends. */
  async attach(domain: DomainView): Promise<void> {
    if (!["running", "paused"].includes(domain.state)) {
      throw new CommandError(
        `.attach: domain ${domain.id} (${domain.name}) has ended: ${domain.state}; what it wrote is ` +
          `in dom.console.text`,
      );
    }
    this.listen(domain);
    const { display } = this.editor;
    this.#showConsoles();
    const open = display.openLine(domain);
    display.freshLine();
    this.print(`attached to ${domain.name}; ctrl-] comes back\n`);
    display.forget();
    // The line that the guest is writing, its prompt say, is where it goes on.
    display.pass(open, domain);
    this.#attached = domain;
    this.#stopped = undefined;
    await new Promise<void>((resolve) => {
      const release = this.terminal.grab((bytes) => {
        const end = bytes.indexOf(DETACH);
        const typed = end < 0 ? bytes : bytes.subarray(0, end);
        if (typed.length) domain.console.write(typed.slice());
        if (end >= 0) this.detach();
      });
      this.#release = () => {
        release();
        resolve();
      };
      domain.unpause();
    });
    this.#attached = undefined;
    display.reclaim(domain);
    this.#showConsoles();
    if (this.#takeStopped() !== domain) return;
    // Whoever sat at the console is told why it is no longer there.
    if (domain.state === "paused") printStop(domain.stop ?? null, this.session);
    else this.#tellStop(domain);
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
    terminal.start((bytes) => editor.feed(bytes), () => {
      this.detach();
      editor.press("ctrl-d");
    });
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
    session.evaluator.interrupt.clear();
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
