/**
 * A session: inputs in, printed results out; commands and TypeScript over the same objects.
 *
 * @module
 */
import { brief } from "../src/builder/errors.ts";
import { printStop } from "./commands/format.ts";
import { COMMAND_NAMES, commandOf, type Invocation, isCommand } from "./commands/registry.ts";
import {
  CommandError,
  type Context,
  type DomainView,
  type HypervisorView,
  type VcpuView,
} from "./context.ts";
import { Evaluator } from "./evaluator/evaluator.ts";
import { Interrupted, isInterrupted } from "./evaluator/interrupt.ts";
import { isOurs, MESSAGE_MAX, show, showError } from "./evaluator/show.ts";
import { isValid, prepare } from "./evaluator/source.ts";

/** What a session is told. */
export interface SessionOptions {
  /** Where results go. */
  print: (text: string) => void;
  /** Where errors go; as results if not given. */
  printError?: (text: string) => void;
  colors?: boolean;
  columns?: () => number;
  evaluator?: Evaluator;
  /** Gives the terminal to a domain's console until ctrl-]. */
  attach?: (domain: DomainView) => Promise<void>;
  /** Told when the session has another host, or domains were made. */
  changed?: () => void;
}

/** What came of an input: whether it went well. `again` is what Enter then stands for. */
export interface Result {
  ok: boolean;
  again?: string;
}

/** Where in a file an input stands. */
interface Place {
  file: string;
  line: number;
}

/** A session of the shell, whatever its input and output are. */
export class Session implements Context {
  readonly evaluator: Evaluator;
  readonly inputs: string[] = [];
  readonly memory: Map<string, unknown> = new Map();
  /** The exit status, once the session is to end. */
  exitCode: number | null = null;
  /** Makes what an input needs before it runs; null: everything. `command` is the word, if it is one. */
  supply: (input: string | null, command?: string) => Promise<void> = () => Promise.resolve();
  /** Name of the domain that will be there when it is needed. */
  expected?: string;
  /** Guests that idle follow the clock on the wall: somebody sits before them. */
  interactive = false;
  /** An input is being run. */
  busy = false;
  /** The last input was a command, and no code. */
  ranCommand = false;
  /** Ctrl-C paused a domain for a command that does not say so itself. */
  #unfinished = false;
  /** Commands that a variable stands before, and this was said. */
  readonly #hidden = new Set<string>();
  /** Domains of which it is said, once, that an answer of a device was dropped. */
  readonly #heeded = new WeakSet<DomainView>();
  readonly #followed = new WeakSet<DomainView>();
  readonly #options: SessionOptions;
  #host: HypervisorView | null = null;
  #domain: DomainView | null = null;
  /** The current vCPU of each domain. */
  readonly #vcpus = new WeakMap<DomainView, number>();
  /** What `dom` and `hv` were at the prompt when last looked at. */
  #seen: { hv?: unknown; dom?: unknown } = {};

  constructor(options: SessionOptions) {
    this.#options = options;
    this.evaluator = options.evaluator ?? new Evaluator();
    // deno-lint-ignore no-this-alias
    const session = this;
    this.evaluator.define({
      get hv() {
        return session.#host ?? undefined;
      },
      set hv(value: unknown) {
        if (!isHost(value)) throw new TypeError("hv is a hypervisor: await Hypervisor.start()");
        session.use(value);
      },
      get dom() {
        return session.#chosen() ?? undefined;
      },
      set dom(value: unknown) {
        if (!isDomain(value)) throw new TypeError("dom is a domain: hv.domains, hv.createDomain()");
        session.select(value);
      },
      get vcpu() {
        const domain = session.#chosen();
        return domain && session.#vcpuOf(domain);
      },
    });
  }

  get colors(): boolean {
    return this.#options.colors ?? false;
  }

  get columns(): number {
    return this.#options.columns?.() ?? 100;
  }

  /** Makes a host the session's: `hv` at the prompt. */
  use(host: HypervisorView): void {
    if (host !== this.#host) this.#domain = null;
    this.#host = host;
    this.#pace();
    this.#heed();
    this.#options.changed?.();
  }

  /** A guest whose device was late goes on as if nothing had been answered: somebody has to say so. */
  #heed(): void {
    for (const domain of this.#host?.domains ?? []) {
      this.#follow(domain);
      const { name, ioreq } = domain;
      if (!ioreq || this.#heeded.has(domain) || !/^(running|paused)$/.test(domain.state)) continue;
      this.#heeded.add(domain);
      let said = false;
      const tell = (text: string) => {
        if (said) return;
        said = true;
        this.#printError(`${name}: ${text}; others are not told of: dom.ioreq.dropped has them\n`);
      };
      if (ioreq.dropped.length > 0) tell(ioreq.dropped[0]);
      else ioreq.onDropped(tell);
    }
  }

  /** Where a domain stops, its vCPU that met the stop is the current one. */
  #follow(domain: DomainView): void {
    if (this.#followed.has(domain) || !/^(running|paused)$/.test(domain.state)) return;
    this.#followed.add(domain);
    domain.onStop?.((stop) => {
      if (stop && stop.kind !== "end") this.#vcpus.set(domain, stop.vcpu.id);
    });
  }

  /** Guests follow the wall clock while somebody sits before them. */
  #pace(): void {
    const host = this.#host;
    if (this.interactive && host && [...host.domains].length > 0 && !host.interactive) {
      host.interactive = true;
    }
  }

  /** Whether Enter takes this input: a command, or code that is whole, or wrong. */
  isWhole(text: string): boolean {
    if (prepare(text).kind !== "incomplete") return true;
    return this.#command(text) !== null;
  }

  /**
   * Runs one input and prints what comes of it.
   *
   * @param place where it comes from, if nobody typed it: a file's name, and how many lines are before it
   */
  async enter(input: string, place?: Place): Promise<Result> {
    this.busy = true;
    try {
      const invocation = this.#command(input);
      if (!invocation?.command.name.startsWith(".")) this.inputs.push(input);
      this.ranCommand = invocation !== null;
      await this.supply(input, invocation?.call.name);
      if (invocation) return await this.#call(invocation);
      return { ok: await this.#evaluate(input, place) };
    } catch (error) {
      return this.#failed(error);
    } finally {
      this.busy = false;
      this.#heed();
    }
  }

  #command(input: string): Invocation | null {
    const unknown = input.match(/^\s*(\.[a-z]\w*)(?:\s|$)/);
    if (unknown && !isCommand(unknown[1])) {
      const dots = COMMAND_NAMES.filter((it) => it.startsWith(".")).join(" ");
      throw new CommandError(`there is no command ${unknown[1]}; there are: ${dots}`);
    }
    return commandOf(input, { isValid, isDefined: (name) => this.evaluator.variables.has(name) });
  }

  async #call({ command, call, word }: Invocation): Promise<Result> {
    await this.refresh();
    const { interrupt } = this.evaluator;
    if (interrupt.take()) throw new Interrupted();
    const running = Promise.resolve(command.run(call, this));
    let failed = false;
    try {
      failed = await interrupt.race(running) === false;
    } catch (error) {
      if (error instanceof Interrupted) {
        const paused = this.#pauseAll();
        // The guest stands within a slice; what the command waits for comes to its end by that.
        const late = new Promise<"late">((resolve) => setTimeout(resolve, 300, "late"));
        const end = await Promise.race([running.then(() => "done", () => "failed"), late]);
        if (end === "done") return { ok: false };
        if (paused) this.#unfinished = true;
      }
      // A refusal of the API is an answer to the command, and not an error of it.
      if (isOwn(error) && !frames()) throw new CommandError(error.message, { cause: error });
      throw error;
    } finally {
      interrupt.clear();
    }
    // Enter repeats the bare word: counts and addresses were meant once.
    return { ok: !failed, again: command.repeat?.replace(/^\w+/, word) };
  }

  async #evaluate(input: string, { file, line }: Partial<Place> = {}): Promise<boolean> {
    const outcome = await this.evaluator.evaluate("\n".repeat(line ?? 0) + input, file);
    this.#tellHidden();
    if (outcome.kind === "incomplete") {
      throw new CommandError(`${file ?? "the input"} ends in the middle of an expression`);
    }
    if (outcome.kind === "error") return this.#failed(outcome.error).ok;
    if (outcome.value !== undefined) this.print(`${this.show(outcome.value)}\n`);
    return true;
  }

  /** Says, once for each, which commands a variable has come to stand before. */
  #tellHidden(): void {
    for (const name of COMMAND_NAMES) {
      if (this.#hidden.has(name) || !this.evaluator.variables.isOwn(name)) continue;
      this.#hidden.add(name);
      this.#printError(`${name} is a variable now; the command ${name} is .${name}\n`);
    }
  }

  #printError(text: string): void {
    (this.#options.printError ?? this.#options.print)(text);
  }

  #failed(error: unknown): Result {
    const paused = isInterrupted(error) && (this.#pauseAll() || this.#unfinished);
    this.#unfinished = false;
    const red = (text: string) => this.colors ? `\x1b[31m${text}\x1b[39m` : text;
    const text = error instanceof CommandError
      ? red(brief(error.message, MESSAGE_MAX))
      : showError(error, { colors: this.colors, frames: frames() });
    this.#printError(`${text}\n`);
    if (paused) printStop(null, this);
    return { ok: false };
  }

  /** Pauses the domains that run; false when there were none. */
  #pauseAll(): boolean {
    const running = [...this.#host?.domains ?? []].filter((it) => it.state === "running");
    for (const domain of running) void domain.pause();
    return running.length > 0;
  }

  /** Pauses what runs, as ctrl-C at an empty prompt does; false when nothing did. */
  pauseRunning(): boolean {
    const paused = this.#pauseAll();
    if (paused) printStop(null, this);
    return paused;
  }

  /** Looks at what `hv` and `dom` mean at the prompt now: the user may have named others so. */
  async refresh(): Promise<void> {
    const hv = (await this.evaluator.peek("hv"))?.value;
    if (hv !== this.#seen.hv && isHost(hv)) this.#host = hv;
    this.#pace();
    const dom = (await this.evaluator.peek("dom"))?.value;
    if (dom !== this.#seen.dom && isDomain(dom)) this.#domain = dom;
    this.#seen = { hv, dom };
  }

  #chosen(): DomainView | null {
    const domains = [...this.#host?.domains ?? []];
    if (this.#domain && (domains.includes(this.#domain) || domains.length === 0)) {
      return this.#domain;
    }
    return domains.at(-1) ?? null;
  }

  hypervisor(): HypervisorView | null {
    return this.#host;
  }

  domain(): DomainView {
    const domain = this.#chosen();
    if (domain) return domain;
    if (this.#host?.closed) {
      throw new CommandError("hv is closed; start another: hv = await Hypervisor.start()");
    }
    throw new CommandError(
      "there is no domain; make one: await hv.createDomain({ name, type, kernel, … })",
    );
  }

  vcpu(): VcpuView {
    return this.#vcpuOf(this.domain());
  }
  #vcpuOf(domain: DomainView): VcpuView {
    return domain.vcpus[this.#vcpus.get(domain) ?? 0];
  }

  select(domain: DomainView, vcpu?: number): void {
    this.#domain = domain;
    if (vcpu !== undefined) this.#vcpus.set(domain, vcpu);
  }

  async evaluate(expression: string): Promise<unknown> {
    const outcome = await this.evaluator.evaluate(`(${expression}\n)`);
    if (outcome.kind === "error") throw outcome.error;
    if (outcome.kind === "incomplete") throw new SyntaxError(`unfinished: ${expression}`);
    return outcome.value;
  }

  print(text: string): void {
    this.#options.print(text);
  }

  show(value: unknown): string {
    return show(value, { colors: this.colors, width: this.columns });
  }

  async runScript(text: string, file: string): Promise<boolean> {
    const whole = prepare(text).kind === "ready";
    const inputs = whole ? [{ text, line: 0 }] : this.#split(text);
    for (const { text, line } of inputs) {
      if (!(await this.enter(text, { file, line })).ok) return false;
      if (this.exitCode !== null) break;
    }
    return true;
  }

  /** The lines of `text` put together to whole inputs, each with the number of lines before it. */
  #split(text: string): { text: string; line: number }[] {
    const inputs: { text: string; line: number }[] = [];
    let open = "", start = 0;
    for (const [n, line] of text.split("\n").entries()) {
      if (!open) start = n;
      open += open ? `\n${line}` : line;
      if (!this.#isWholeLine(open)) continue;
      if (open.trim()) inputs.push({ text: open, line: start });
      open = "";
    }
    return open.trim() ? [...inputs, { text: open, line: start }] : inputs;
  }

  /** As {@linkcode Session.isWhole}; entering an unknown command says that it is one. */
  #isWholeLine(text: string): boolean {
    try {
      return this.isWhole(text);
    } catch {
      return true;
    }
  }

  attach(domain: DomainView): Promise<void> {
    if (this.#options.attach) return this.#options.attach(domain);
    throw new CommandError(".attach: needs a terminal");
  }

  onInterrupt(listener: () => void): () => void {
    return this.evaluator.interrupt.listen(listener);
  }

  exit(code = 0): void {
    this.exitCode = code;
  }
}

/** Hands errors that nobody catches (in callbacks, in promises let go) to `report`; returns how to stop. */
export function watchStrays(report: (error: unknown) => void): () => void {
  const onRejection = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    report(event.reason);
  };
  const onError = (event: ErrorEvent) => {
    event.preventDefault();
    report(event.error);
  };
  addEventListener("unhandledrejection", onRejection);
  addEventListener("error", onError);
  return () => {
    removeEventListener("unhandledrejection", onRejection);
    removeEventListener("error", onError);
  };
}

const frames = () => Deno.env.get("XVM_STACK") ? "all" as const : undefined;

/** Whether an error was thrown by xvm itself, on purpose, and by no code of the user's. */
function isOwn(error: unknown): error is Error {
  if (!(error instanceof Error) || error instanceof CommandError) return false;
  if (error instanceof Interrupted) return false;
  return error.message !== "" && isOurs(error);
}

function isHost(value: unknown): value is HypervisorView {
  return typeof value === "object" && value !== null && "domains" in value;
}

function isDomain(value: unknown): value is DomainView {
  return typeof value === "object" && value !== null && "vcpus" in value && "until" in value;
}
