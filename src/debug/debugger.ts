/**
 * The debugger of one domain: its breakpoints, the verbs over them, steps, and what is told to whom
 * when the domain stops.
 *
 * @module
 */
import { decode, DecodeStatus, Instruction } from "../machine/isa/decode.ts";
import type { Attributes } from "../machine/isa/encodings.ts";
import type { Exit } from "../hvm/exit.ts";
import { exitRows } from "../hvm/exit_kinds.ts";
import { flag as bool, record } from "../machine/shape.ts";
import { refuse } from "../machine/state_block.ts";
import type { Domain as Inner, DomainState } from "../xen/domain.ts";
import { HVM_BLOCK, HvmEngine } from "../xen/hvm.ts";
import { Monitor, type MonitorEvent, type Observer, type Verdict } from "../xen/monitor.ts";
import type { Watch } from "../xen/watches.ts";
import { type BreakOptions, Breakpoint, type Decision } from "./events/breakpoint.ts";
import type { GuestDomain } from "./domain.ts";
import { mustLive } from "./gone.ts";
import { callable, count, flag, options as optionsOf, text, toCount } from "./check.ts";
import { type Filter, toFilter, toKind } from "./events/filters.ts";
import { everywhere, exitsFor, fieldsOf, isExit, type Kind } from "./kinds.ts";
import { comes, held } from "./held.ts";
import { codeBits, linearIp } from "./register_file.ts";
import { GuestStopped, type Response, Stop, StopOver } from "./events/stop.ts";
import { BreakpointTable } from "./events/table.ts";
import { counted, hex, throwLate } from "./values.ts";

/** Why the domain came to stand still, as the verbs see it. */
type Outcome =
  | { readonly kind: "stop"; readonly stop: Stop }
  | { readonly kind: "paused" }
  /** The host was put into a saved state. */
  | { readonly kind: "loaded" }
  | { readonly kind: "ended"; readonly stop: Stop };

/** Somebody who waits for the domain to stop. Returns whether it was told what it wanted. */
type Waiter = (outcome: Outcome) => void;

/** What ends a wait, and what is done then. */
interface Abort {
  readonly signal: AbortSignal;
  readonly then: () => void;
}

/** How the domain stands, for those who look at it. */
interface Standing {
  /** The breakpoint at the present address was reached: going on passes it. */
  readonly passing: boolean;
  /** It stands at its exit, which can be answered. */
  readonly atExit: boolean;
}

export class Debugger implements Observer {
  readonly monitor: Monitor;
  readonly #table = new BreakpointTable();
  #nextId = 1;
  readonly #waiters = new Set<Waiter>();
  /** Told each time the domain has come to stand still: at a stop, paused (null), or ended. */
  readonly onStop: Set<(stop: Stop | null) => void> = new Set();
  /** The stop that the domain is about to stand at. */
  #reported: Stop | undefined;
  /** Where the domain stands. */
  #at: Stop | undefined;
  /** An asynchronous action is under way; whoever waits is not told yet. */
  #acting: Promise<void> | undefined;
  /** A predicate or an action threw: the next waiter gets it. */
  #failure: { error: unknown } | undefined;

  constructor(readonly owner: GuestDomain, readonly domain: Inner) {
    this.monitor = new Monitor(domain.vcpus[0], this);
    this.#register();
    domain.onLoaded.add(() => this.#wasLoaded());
    domain.onState.add((state) => this.#stateChanged(state));
    domain.onFailure.add((error) => this.#failure = { error });
  }

  get breakpoints(): readonly Breakpoint[] {
    return [...this.#table.all].filter((b) => !b.temporary);
  }
  /** The stop the domain stands at. */
  get at(): Stop | undefined {
    return this.domain.state.kind === "running" ? undefined : this.#at;
  }

  // --- breakpoints ---

  add(
    kindName: string,
    filter: object,
    options: BreakOptions,
    how: { temporary?: boolean; traces?: boolean } = {},
  ): Breakpoint {
    mustLive(this.domain, `"${kindName}"`);
    const kind = toKind(kindName);
    const { engine } = this.domain.vcpus[0];
    if (engine instanceof HvmEngine) {
      const { ops, shadow } = engine;
      if (isExit(kind) && !ops.exitKinds.includes(kind)) {
        throw new Error(
          `this host's processor has no exits of kind "${kind}": ${ops.name} lacks them`,
        );
      }
      if (isExit(kind) && exitRows[kind].paging === "shadow" && !shadow) {
        throw new Error(
          `domain ${this.domain.name} has nested paging: there is no "${kind}" to break on; ` +
            `a domain with paging: "shadow" has it`,
        );
      }
    } else {
      if (!everywhere.includes(kind)) {
        throw new Error(
          `domain ${this.domain.name} runs on the bare processor: nothing leaves it, so there is no ` +
            `"${kind}" to break on; it has: ${
              everywhere.join(", ")
            }. A domain of type "hvm" has all`,
        );
      }
    }
    BREAK_OPTIONS(options, kind);
    const { temporary = false, traces = false } = how;
    const breakpoint = new Breakpoint(
      temporary ? 0 : this.#nextId++,
      kind,
      toFilter(kind, filter, this.owner.symbols),
      options,
      temporary,
      traces,
      (b) => this.#changed(b),
    );
    try {
      this.#changed(breakpoint);
    } catch (error) {
      breakpoint.delete();
      throw error;
    }
    return breakpoint;
  }

  /** What is armed follows the table. */
  #changed(b: Breakpoint): void {
    this.#table.update(b);
    if (this.domain.state.kind === "destroyed") return;
    if (b.kind === "execute") {
      const address = b.filter.address as bigint;
      this.monitor.setAddress(address, this.#table.at(address).size > 0);
    } else if (b.kind === "watch") this.#armWatch(b);
    else if (b.kind === "step") this.#armStep();
    else {
      const { exits } = this.#table;
      this.monitor.setExits(exits.size > 0 ? () => exitsFor(exits) : undefined);
    }
  }
  #armStep(): void {
    if (this.#table.of("step").size > 0) this.monitor.setStep(Infinity, () => this.#stepped());
    else this.monitor.clearStep();
  }
  #armWatch(b: Breakpoint): void {
    const known = this.#watchOf.get(b);
    if (known) this.monitor.setWatch(known, false);
    this.#watchOf.delete(b);
    if (!b.enabled) return;
    // What is at a guest-physical address may have changed.
    const watch = this.#newWatch(b);
    this.#watchOf.set(b, watch);
    this.#watches.set(watch, b);
    this.monitor.setWatch(watch, true);
  }

  readonly #watchOf = new WeakMap<Breakpoint, Watch>();
  readonly #watches = new WeakMap<Watch, Breakpoint>();
  #newWatch(b: Breakpoint): Watch {
    const { address, length, read, write, physical } = b.filter as {
      address: bigint;
      length: number;
      read: boolean;
      write: boolean;
      physical?: boolean;
    };
    return physical
      ? { space: "machine", ranges: this.#machineRanges(Number(address), length), read, write }
      : { space: "linear", ranges: [[address, address + BigInt(length)]], read, write };
  }
  #machineRanges(gpa: number, length: number): [bigint, bigint][] {
    const ranges: [bigint, bigint][] = [];
    for (let at = gpa; at < gpa + length;) {
      const n = Math.min(4096 - at % 4096, gpa + length - at);
      const machine = this.domain.memory.machineAddress(at);
      if (machine >= 0) ranges.push([BigInt(machine), BigInt(machine + n)]);
      at += n;
    }
    const { size } = this.domain.memory;
    if (ranges.length === 0 || gpa + length > size) {
      throw new RangeError(
        `watch: not all of ${counted(length, "byte")} from guest-physical ${
          hex(gpa)
        } is memory, which ends at ${hex(size)}`,
      );
    }
    return ranges;
  }

  // --- Observer ---

  ip(): bigint {
    return this.owner.vcpu.file.get("rip")!;
  }
  linearIp(): bigint {
    return linearIp(this.owner.vcpu.file);
  }

  event(event: MonitorEvent): Stop | undefined {
    const vcpu = this.owner.vcpu;
    if (event.kind === "step") {
      if (this.#stopReason) return this.#report(this.#stopReason);
      return this.#report(new Stop("step", vcpu, {}));
    }
    if (event.kind === "execute") {
      const { address } = event;
      return this.#offer("execute", { address }, this.#table.at(address));
    }
    let stopped: Stop | undefined;
    for (const hit of event.hits) {
      const breakpoint = this.#watches.get(hit.watch);
      if (!breakpoint) continue;
      const fields = {
        address: hit.linear,
        physical: this.owner.guestPhysical(hit.parts[0].machine),
        length: hit.bytes,
        write: hit.write,
        delivery: hit.delivery,
        old: hit.old,
        value: hit.value,
      };
      const stop = this.#offer("watch", fields, [breakpoint], {});
      if (stop && stopped) asking(stopped).push(...stop.breakpoints);
      else stopped ??= stop;
    }
    return stopped && this.#report(stopped);
  }

  /** What an exit has, as scripts see it. */
  #fieldsOf(exit: Exit): Record<string, unknown> {
    const { cpuid, vcpu } = this.owner;
    return fieldsOf(exit, {
      cpuid: (leaf, subleaf) => cpuid.read(leaf, subleaf),
      eax: () => Number(vcpu.regs.eax),
    });
  }

  exit(exit: Exit): Verdict | undefined {
    const { owner } = this;
    const fields = this.#fieldsOf(exit);
    const kinds: Kind[] = [exit.kind as Kind];
    let device: Record<string, unknown> | undefined;
    if (exit.kind === "nested-page-fault" && !this.#isMemory(exit.gpa)) {
      device = { address: fields.gpa, write: exit.write, linear: fields.linear };
      kinds.push("mmio");
    }
    let verdict: Verdict | undefined;
    for (const kind of [...kinds, "any"] as Kind[]) {
      if (this.#table.of(kind).size === 0) continue;
      const shown = kind === "any" ? exit.kind as Kind : kind;
      const own = kind === "mmio" ? device! : fields;
      const stop = new Stop(shown, owner.vcpu, own, exit);
      verdict ??= this.#verdict(stop, kind, own);
    }
    return verdict;
  }
  #isMemory(gpa: number): boolean {
    return this.domain.memory.machineAddress(gpa) >= 0;
  }
  #verdict(stop: Stop, kind: Kind, fields: Readonly<Record<string, unknown>>): Verdict | undefined {
    const response = this.#ask(stop, kind, fields, this.#table.of(kind));
    if (!response) return undefined;
    if (response.kind === "stop") return { kind: "stop", stop: this.#report(stop) };
    return this.#verdictOf(response, stop);
  }
  /** An access that faults leaves amid its instruction: the code tells how long that is. */
  #verdictOf(response: Response, stop: Stop): Verdict {
    const verdict = verdictOf(response, stop);
    if (verdict.kind !== "skip" || !stop.amidInstruction) return verdict;
    const instruction = this.#instruction();
    if (!instruction) {
      throw new Error(
        `skip() of an instruction was asked for, and there is none that can be read at ` +
          `0x${this.owner.vcpu.regs.rip.toString(16)}`,
      );
    }
    return { kind: "skip", length: instruction.length };
  }

  /** An answer given while the domain stands at a stop. */
  answer(stop: Stop, response: Response): void {
    if (response.kind === "skip" && stop.kind === "execute") this.#skip();
    else if (response.kind !== "continue" && response.kind !== "stop") {
      this.monitor.answer(this.#verdictOf(response, stop));
    }
  }

  /** Asks those whose event it is; a stop if one of them wants the domain to stand still. */
  #offer(
    kind: Kind,
    fields: Readonly<Record<string, unknown>>,
    asked: Iterable<Breakpoint>,
    filtered: Readonly<Record<string, unknown>> = fields,
  ): Stop | undefined {
    const stop = new Stop(kind, this.owner.vcpu, fields);
    const response = this.#ask(stop, kind, filtered, asked);
    if (!response) return undefined;
    if (response.kind === "skip" && kind === "execute") {
      this.#skip();
      return undefined;
    }
    return response.kind === "stop" ? this.#report(stop) : undefined;
  }

  /** The strongest answer of the breakpoints that match, of those whose event it may be. */
  #ask(
    stop: Stop,
    kind: Kind,
    fields: Readonly<Record<string, unknown>>,
    candidates: Iterable<Breakpoint>,
  ): Response | undefined {
    let answer: Response | undefined;
    const waiting: Promise<Response | undefined>[] = [];
    const asked: Breakpoint[] = [];
    // Actions may add some and take some away.
    for (const b of [...candidates]) {
      let decision: Decision;
      try {
        if (!takes(b, stop, kind, fields)) continue;
        decision = b.traces ? b.act(stop) : held(
          this.domain,
          `the action of breakpoint ${b.id} (${b.kind})`,
          () => b.act(stop),
          (d) => d.kind === "wait" && d.promise,
        );
        // What the action told others of is dealt with before the guest goes on.
        if (b.acts) this.domain.host.yield();
      } catch (error) {
        this.#failure = { error };
        decision = { kind: "respond", response: { kind: "stop" } };
      }
      if (decision.kind === "none") {
        decision.begun?.catch((error) => this.#traceFailed(b, error));
        continue;
      }
      if (decision.kind === "wait") waiting.push(decision.promise);
      else if (!answer || decision.response.kind === "stop" || answer.kind === "continue") {
        if (answer?.kind !== "stop") answer = decision.response;
      }
      if (decision.kind === "wait" || decision.response.kind === "stop") asked.push(b);
    }
    asking(stop).push(...asked);
    if (waiting.length > 0 && answer?.kind !== "stop") {
      this.#await(stop, waiting);
      answer = { kind: "stop" };
    }
    stop.freeze(answer?.kind === "stop");
    return answer;
  }

  /** Nobody waits for what a trace does: its first failure is told, and turns it off. */
  #traceFailed(trace: Breakpoint, error: unknown): void {
    if (!trace.enabled) return;
    trace.enabled = false;
    const what = `trace ${trace.id} (${trace.kind})`;
    throwLate(new Error(`${what}: its action failed, and it is off now`, { cause: error }));
  }

  /** The domain stands still until the actions are done; then goes on, or has stopped there. */
  #await(stop: Stop, promises: Promise<Response | undefined>[]): void {
    const acting = Promise.all(promises).then((responses) => {
      if (this.#acting !== acting) return;
      this.#acting = undefined;
      if (responses.every((r) => r && r.kind !== "stop")) this.#go();
      else this.#tell({ kind: "stop", stop });
    }, (error) => {
      // Of one that was overtaken (the host was loaded, say) the answer is nobody's.
      if (this.#acting !== acting && error instanceof StopOver) return;
      if (this.#acting === acting) this.#acting = undefined;
      this.#failure = { error };
      this.#tell({ kind: "stop", stop });
    });
    this.#acting = acting;
  }

  /** Somebody pauses the domain: it stays so, whatever was under way. */
  pause(): void {
    const acting = this.#acting !== undefined;
    this.#acting = undefined;
    const { id, host, state } = this.domain;
    // Where ctrl-C, or a script, took hold comes from outside.
    if (state.kind === "running" || state.kind === "blocked") host.world.enter("pause", id, null);
    this.domain.pause();
    if (acting) this.#tell({ kind: "paused" });
  }

  /** The instruction at a breakpoint is passed over. */
  #skip(): void {
    const { vcpu } = this.owner;
    const [line] = vcpu.disassemble(undefined, 1);
    vcpu.regs.rip = BigInt.asUintN(
      vcpu.bits === 64 ? 64 : 32,
      vcpu.regs.rip + BigInt(line.bytes.length),
    );
  }

  #report(stop: Stop): Stop {
    stop.freeze(true);
    this.#reported = stop;
    return stop;
  }

  // --- saving and loading ---

  /** Registers how the domain stands for those who look at it. */
  #register(): void {
    const { monitor } = this;
    this.domain.blocks.register<Standing>({
      name: "standing",
      version: 1,
      shape: record({ passing: bool, atExit: bool }),
      hashed: false,
      save: () => ({ passing: monitor.passing, atExit: monitor.stoppedAt !== undefined }),
      check: ({ atExit }, beside) => {
        const vcpu = beside(`vcpu 0 ${HVM_BLOCK}`) as { pending: unknown } | undefined;
        if (atExit && !vcpu?.pending) {
          refuse(
            `the saved state says that domain ${this.domain.name} stands at an exit: it has none`,
          );
        }
      },
      load: (standing) => this.#loaded = standing,
    });
  }
  #loaded: Standing = { passing: false, atExit: false };

  /** The host was put into a saved state: what was under way is over, breakpoints stay. */
  #wasLoaded(): void {
    const { passing, atExit } = this.#loaded;
    const exit = this.monitor.loaded(passing, atExit);
    this.#at?.outdate("the host was put into a saved state since");
    this.#reported?.outdate("the host was put into a saved state since");
    this.#reported = this.#stopReason = this.#acting = undefined;
    this.#at = exit && new Stop(exit.kind as Kind, this.owner.vcpu, this.#fieldsOf(exit), exit);
    this.#at?.freeze(true);
    this.#tell({ kind: "loaded" });
  }

  // --- the domain's state ---

  #stateChanged(state: DomainState): void {
    if (state.kind === "running") {
      if (!this.#reported) this.#at = undefined;
      return;
    }
    if (state.kind === "blocked") return;
    if (state.kind === "paused") {
      const stop = this.#reported;
      this.#reported = undefined;
      this.#at = stop;
      if (this.#acting) return;
      if (stop) this.#tell({ kind: "stop", stop });
      // A driver that failed pauses first, and says so after.
      else {
        queueMicrotask(() => {
          if (this.domain.state.kind === "paused") this.#tell({ kind: "paused" });
        });
      }
      return;
    }
    this.#reported = this.#at = undefined;
    this.monitor.clearStep();
    this.#tell(this.#ending(state));
  }

  #ending(state: DomainState): Outcome {
    const [reason, detail] = state.kind === "shutdown"
      ? [state.reason, state.detail]
      : ["destroyed", "by request"];
    return { kind: "ended", stop: new Stop("end", this.owner.vcpu, { reason, detail }) };
  }

  /** The host's driver failed: whoever waits is told. */
  fail(error: unknown): void {
    this.#failure = { error };
    this.#tell({ kind: "paused" });
  }

  #tell(outcome: Outcome): void {
    this.#stopReason = undefined;
    for (const waiter of [...this.#waiters]) waiter(outcome);
    const stop = "stop" in outcome ? outcome.stop : null;
    for (const listener of [...this.onStop]) queueMicrotask(() => listener(stop));
    if (this.#failure) {
      // Nobody waited.
      throwLate(this.#failure.error);
      this.#failure = undefined;
    }
  }

  // --- verbs ---

  /** Lets the domain run and waits for what comes of it. */
  run(start: () => void = () => this.#go(), abort?: Abort): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      abort?.signal.throwIfAborted();
      const leave = () => {
        this.#waiters.delete(waiter);
        abort?.signal.removeEventListener("abort", aborted);
      };
      const aborted = () => {
        leave();
        reject(abort!.signal.reason);
        abort!.then();
      };
      const waiter: Waiter = (outcome) => {
        leave();
        const failure = this.#failure;
        this.#failure = undefined;
        if (failure) reject(failure.error);
        else resolve(outcome);
      };
      const refuse = (error: unknown) => {
        leave();
        reject(error);
      };
      if (!comes(this.domain, refuse)) return;
      this.#waiters.add(waiter);
      abort?.signal.addEventListener("abort", aborted);
      try {
        start();
      } catch (error) {
        refuse(error);
      }
    });
  }

  #go(): void {
    this.owner.unpause();
  }

  /** Runs until `breakpoint` asks for a stop; the breakpoint goes then. */
  async until(breakpoint: Breakpoint, signal?: AbortSignal): Promise<Stop | GuestStopped> {
    try {
      const abort = signal && { signal, then: () => this.pause() };
      const outcome = await this.run(() => this.#go(), abort);
      if (outcome.kind === "stop" && outcome.stop.breakpoints.includes(breakpoint)) {
        return outcome.stop;
      }
      return this.stopped(outcome, breakpoint.kind);
    } finally {
      breakpoint.delete();
    }
  }

  /** Waits for a breakpoint of somebody else's run. */
  async wait(breakpoint: Breakpoint, signal?: AbortSignal): Promise<Stop> {
    try {
      if (this.domain.ended) throw this.stopped(this.#ending(this.domain.state), breakpoint.kind);
      for (;;) {
        const outcome = await this.run(() => {}, signal && { signal, then: () => {} });
        if (outcome.kind === "stop" && outcome.stop.breakpoints.includes(breakpoint)) {
          return outcome.stop;
        }
        if (outcome.kind === "ended" || outcome.kind === "loaded") {
          throw this.stopped(outcome, breakpoint.kind);
        }
      }
    } finally {
      breakpoint.delete();
    }
  }

  /** What a verb says that did not get what it waited for. */
  stopped(outcome: Outcome, wanted: string): GuestStopped {
    const { name } = this.domain;
    if (outcome.kind === "paused") {
      return new GuestStopped(`domain ${name} was paused before "${wanted}" came`, "paused");
    }
    if (outcome.kind === "loaded") {
      return new GuestStopped(
        `the host was put into a saved state before "${wanted}" came in domain ${name}`,
        "loaded",
      );
    }
    const { stop } = outcome;
    if (outcome.kind === "ended") {
      const { reason, detail } = stop as unknown as { reason: string; detail: string };
      return new GuestStopped(
        `domain ${name} ended before "${wanted}" came: ${reason} (${detail})`,
        reason,
        stop,
      );
    }
    return new GuestStopped(
      `domain ${name} stopped elsewhere before "${wanted}" came: ${stop.describe()}`,
      "stopped",
      stop,
    );
  }

  /** Executes so many instructions. */
  async step(instructions: number): Promise<Stop> {
    this.#mustStand("step");
    const each = this.#table.of("step").size > 0;
    this.monitor.setStep(
      toCount(instructions, "step", 1, Number.MAX_SAFE_INTEGER),
      each ? () => this.#stepped() : undefined,
    );
    return await this.#stepRun();
  }

  async #stepRun(): Promise<Stop> {
    try {
      const outcome = await this.run();
      if (outcome.kind === "stop") return outcome.stop;
      throw this.stopped(outcome, "step");
    } finally {
      this.#armStep();
    }
  }

  #mustStand(what: string): void {
    mustLive(this.domain, what);
    const { kind } = this.domain.state;
    if (kind === "running" || kind === "blocked") {
      throw new Error(`${what}: domain ${this.domain.name} is ${kind}; pause it first`);
    }
  }

  /** Executes one instruction; a call, an interrupt or a repeated one as a whole. */
  async stepOver(): Promise<Stop> {
    this.#mustStand("stepOver");
    const { vcpu } = this.owner;
    const x = this.#instruction();
    if (!x || !(x.flow === "call" || x.repeats)) return await this.step(1);
    const next = linearIp(vcpu.file) + BigInt(x.length);
    const address = vcpu.bits === 64 ? BigInt.asUintN(64, next) : BigInt.asUintN(32, next);
    const stack = vcpu.regs.rsp;
    // The same place in a deeper call of the same function is not the one.
    const breakpoint = this.add("execute", { address }, {
      predicate: (s) => s.vcpu.regs.rsp >= stack,
    }, { temporary: true });
    const result = await this.until(breakpoint);
    if (result instanceof Stop) return this.#asStep(result);
    if (result.stop && result.reason === "stopped") return result.stop;
    throw result;
  }

  /** Runs until a return has taken away the present frame. */
  async stepOut(): Promise<Stop> {
    this.#mustStand("stepOut");
    const { vcpu } = this.owner;
    const stack = vcpu.regs.rsp;
    let before = this.#instruction()?.flow;
    this.monitor.setStep(Infinity, () => {
      const returned = before === "return" && vcpu.regs.rsp > stack;
      before = returned ? undefined : this.#instruction()?.flow;
      return returned;
    });
    return await this.#stepRun();
  }

  #asStep(stop: Stop): Stop {
    const step = new Stop("step", stop.vcpu, {});
    step.freeze(true);
    return this.#at = step;
  }

  /** The next instruction, undefined if it cannot be read. */
  #instruction(): { flow: Attributes["flow"]; length: number; repeats: boolean } | undefined {
    const { vcpu } = this.owner;
    const bytes = vcpu.codeBytes(linearIp(vcpu.file), 15);
    const { decodeAs } = vcpu.domain.inner.host.machine.cpu;
    const status = decode(bytes, 0, bytes.length, codeBits(vcpu.file), scratch, decodeAs);
    if (status !== DecodeStatus.Ok) return undefined;
    const { flow, rep } = scratch.encoding.attributes;
    return { flow, length: scratch.length, repeats: scratch.rep !== 0 && rep !== "" };
  }

  #stopReason: Stop | undefined;
  /** Breakpoints of kind "step": asked after each instruction. */
  #stepped(): boolean {
    const stop = this.#offerStep();
    this.#stopReason = stop;
    return stop !== undefined;
  }
  #offerStep(): Stop | undefined {
    const stop = new Stop("step", this.owner.vcpu, {});
    return this.#ask(stop, "step", {}, this.#table.of("step"))?.kind === "stop" ? stop : undefined;
  }
}

/** @see BreakOptions */
const BREAK_OPTIONS = optionsOf({
  predicate: callable,
  condition: text,
  hits: count,
  once: flag,
  action: callable,
});

const scratch = new Instruction();

/** The list of those that asked for a stop, to add to. */
const asking = (stop: Stop) => stop.breakpoints as Breakpoint[];

const takes = (b: Breakpoint, stop: Stop, kind: Kind, fields: Filter) =>
  b.takes(stop, kind === "watch" || kind === "any" ? { ...fields, ...b.filter } : fields);

function verdictOf(response: Response, stop: Stop): Verdict {
  if (response.kind === "reply") {
    return { kind: "reply", registers: stop.replyRegisters(response.values) };
  }
  if (response.kind === "stop") return { kind: "continue" };
  return response;
}
