/**
 * The debugger of one domain: what its monitor sees goes to breakpoints, what they answer to the domain,
 * and where it comes to stand to those who wait.
 *
 * @module
 */
import type { Exit } from "../hvm/exit.ts";
import type { Guest } from "../hvm/exit_kinds.ts";
import { flag, record } from "../machine/shape.ts";
import { refuse } from "../machine/state_block.ts";
import type { DomainState } from "../xen/domain.ts";
import { HVM_BLOCK } from "../xen/hvm.ts";
import { Monitor, type MonitorEvent, type Observer, type Verdict } from "../xen/monitor.ts";
import { Asks, skipNext, verdictOf } from "./events/asks.ts";
import type { Break, Breakpoint } from "./events/breakpoint.ts";
import { Breaks } from "./events/breaks.ts";
import { type Desk, Occurrence } from "./events/occurrence.ts";
import type { Stepping } from "./events/steps.ts";
import type { Response, Stop } from "./events/stop.ts";
import { Waiters, type WaitOutcome } from "./events/waiters.ts";
import { type Kind, namesOf, type SeenExit } from "./kinds.ts";
import type { Subject } from "./subject.ts";
import type { GuestVcpu } from "./vcpu.ts";
import type { VcpuSubject } from "./vcpu_subject.ts";
import { CpuidTable } from "./views/cpuid.ts";
import type { GuestStopped } from "./waits.ts";

/** How the domain stands, for those who look at it. */
interface Standing {
  /** The breakpoint at the present address was reached: going on passes it. */
  readonly passing: boolean;
  /** It stands at its exit, which can be answered. */
  readonly atExit: boolean;
}

export class Debugger implements Observer, Desk, Stepping {
  readonly monitor: Monitor;
  readonly waiters: Waiters;
  readonly breaks: Breaks;
  readonly #asks: Asks;
  readonly #guest: Guest;
  /** The vCPU that the monitor looks at. */
  readonly #vcpu: VcpuSubject;
  /** What the domain is about to stop at. */
  #reported: Occurrence | undefined;
  /** Where the domain stands. */
  #at: Occurrence | undefined;
  /** What a breakpoint of kind "step" has stopped at. */
  #stepped: Occurrence | undefined;
  #loaded: Standing = { passing: false, atExit: false };

  constructor(
    readonly subject: Subject,
    /** The vCPUs as scripts hold them: stops have them. */
    readonly vcpus: readonly GuestVcpu[],
  ) {
    const { inner } = subject, cpuid = new CpuidTable(subject);
    this.#vcpu = subject.vcpus[0];
    this.monitor = new Monitor(this.#vcpu.inner, this);
    this.waiters = new Waiters(subject);
    this.breaks = new Breaks(subject, this.monitor, () => this.#stepEnds());
    this.#asks = new Asks(
      subject,
      this.waiters,
      () => this.go(),
      ({ stop }) => this.#tell({ kind: "stop", stop }),
    );
    this.#guest = {
      cpuid: (leaf, subleaf) => cpuid.read(leaf, subleaf),
      eax: () => Number(BigInt.asUintN(32, this.#vcpu.file.get("rax")!)),
      isMemory: (gpa) => inner.memory.machineAddress(gpa) >= 0,
    };
    this.#register();
    inner.onLoaded.add(() => this.#wasLoaded());
    inner.onState.add((state) => this.#stateChanged(state));
    inner.onFailure.add((error) => this.waiters.failed(error));
    subject.host.onError.add(this.#hostFailed);
  }

  /** Those that are listed. */
  get breakpoints(): readonly Breakpoint[] {
    return [...this.breaks.table.all].map((b) => b.shown).filter((b) => !b.temporary);
  }
  /** What the domain stands at. */
  get at(): Occurrence | undefined {
    return this.subject.inner.state.kind === "running" ? undefined : this.#at;
  }
  shown({ id }: VcpuSubject): GuestVcpu {
    return this.vcpus[id];
  }

  // --- what the monitor sees ---

  ip(): bigint {
    return this.#vcpu.file.get("rip")!;
  }
  linearIp(): bigint {
    return this.#vcpu.linearIp;
  }

  #occurs(kind: Kind | "end", fields: Readonly<Record<string, unknown>>, exit?: Exit): Occurrence {
    return new Occurrence(kind, this.#vcpu, fields, this, exit);
  }

  event(event: MonitorEvent): Occurrence | undefined {
    const { table } = this.breaks;
    if (event.kind === "step") return this.#report(this.#stepped ?? this.#occurs("step", {}));
    if (event.kind === "execute") {
      const { address } = event;
      return this.#offer("execute", { address }, table.at(address));
    }
    let stopped: Occurrence | undefined;
    for (const hit of event.hits) {
      const seen = this.breaks.ofHit(hit);
      if (!seen) continue;
      const what = this.#offer("watch", seen.fields, [seen.b], {});
      if (what && stopped) stopped.breakpoints.push(...what.breakpoints);
      else stopped ??= what;
    }
    return stopped && this.#report(stopped);
  }

  exit(exit: Exit): Verdict | undefined {
    let verdict: Verdict | undefined;
    for (const seen of namesOf(exit, this.#guest)) {
      const asked = this.breaks.table.of(seen.kind);
      if (asked.size > 0) verdict ??= this.#verdict(seen, exit, asked);
    }
    return verdict;
  }
  #verdict(
    { kind, shown, fields }: SeenExit,
    exit: Exit,
    asked: Iterable<Break>,
  ): Verdict | undefined {
    const what = this.#occurs(shown, fields, exit);
    const response = this.#asks.ask(what, kind, fields, asked);
    if (!response) return undefined;
    if (response.kind === "stop") return { kind: "stop", stop: this.#report(what) };
    return verdictOf(response, what);
  }

  /** An answer given while the domain stands at a stop. */
  answer(what: Occurrence, response: Response): void {
    if (response.kind === "skip" && what.kind === "execute") skipNext(what);
    else if (response.kind !== "continue" && response.kind !== "stop") {
      this.monitor.answer(verdictOf(response, what));
    }
  }

  /** Asks those whose event it is; what happened, if one of them wants the domain to stand still. */
  #offer(
    kind: Kind,
    fields: Readonly<Record<string, unknown>>,
    asked: Iterable<Break>,
    filtered: Readonly<Record<string, unknown>> = fields,
  ): Occurrence | undefined {
    const what = this.#occurs(kind, fields);
    const response = this.#asks.ask(what, kind, filtered, asked);
    if (response?.kind === "skip" && kind === "execute") skipNext(what);
    return response?.kind === "stop" ? this.#report(what) : undefined;
  }
  #report(what: Occurrence): Occurrence {
    what.freeze(true);
    return this.#reported = what;
  }

  /** Breakpoints of kind "step": asked after each instruction. */
  #stepEnds(): boolean {
    const what = this.#occurs("step", {});
    const response = this.#asks.ask(what, "step", {}, this.breaks.table.of("step"));
    this.#stepped = response?.kind === "stop" ? what : undefined;
    return this.#stepped !== undefined;
  }

  // --- saving and loading ---

  /** Registers how the domain stands for those who look at it. */
  #register(): void {
    const { monitor, subject } = this;
    subject.inner.blocks.register<Standing>({
      name: "standing",
      version: 1,
      shape: record({ passing: flag, atExit: flag }),
      hashed: false,
      save: () => ({ passing: monitor.passing, atExit: monitor.stoppedAt !== undefined }),
      check: ({ atExit }, beside) => {
        const vcpu = beside(`vcpu ${this.#vcpu.id} ${HVM_BLOCK}`) as
          | { pending: unknown }
          | undefined;
        if (atExit && !vcpu?.pending) {
          refuse(`the saved state says that domain ${subject.name} stands at an exit: it has none`);
        }
      },
      load: (standing) => this.#loaded = standing,
    });
  }

  /** The host was put into a saved state: what was under way is over, breakpoints stay. */
  #wasLoaded(): void {
    const { passing, atExit } = this.#loaded;
    const exit = this.monitor.loaded(passing, atExit);
    for (const past of [this.#at, this.#reported]) {
      past?.outdate("the host was put into a saved state since");
    }
    this.#reported = this.#stepped = undefined;
    this.#asks.overtake();
    this.#at = exit && this.#occurs(exit.kind, namesOf(exit, this.#guest)[0].fields, exit);
    this.#at?.freeze(true);
    this.#tell({ kind: "loaded" });
  }

  // --- the domain's state ---

  /** Lets the domain go on. */
  go(): void {
    const { subject, subject: { inner } } = this;
    subject.mustLive("unpause");
    inner.unpause();
    // The driver may be about to rest just now.
    setImmediate(() => {
      const { kind } = inner.state;
      if (kind === "running" || kind === "blocked") inner.host.wake();
    });
  }
  /** Somebody pauses the domain: it stays so, whatever was under way. */
  pause(): void {
    const { acting } = this.#asks, { id, host, inner } = this.subject, { kind } = inner.state;
    this.#asks.overtake();
    // Where ctrl-C, or a script, took hold comes from outside.
    if (kind === "running" || kind === "blocked") host.world.enter("pause", id, null);
    inner.pause();
    if (acting) this.#tell({ kind: "paused" });
  }

  #stateChanged(state: DomainState): void {
    if (state.kind === "running") {
      if (!this.#reported) this.#at = undefined;
      return;
    }
    if (state.kind === "blocked") return;
    if (state.kind === "paused") {
      const what = this.#reported;
      this.#reported = undefined;
      this.#at = what;
      if (this.#asks.acting) return;
      if (what) this.#tell({ kind: "stop", stop: what.stop });
      // A driver that failed pauses first, and says so after.
      else {
        queueMicrotask(() => {
          if (this.subject.inner.state.kind === "paused") this.#tell({ kind: "paused" });
        });
      }
      return;
    }
    if (state.kind === "destroyed") this.subject.host.onError.delete(this.#hostFailed);
    this.#reported = this.#at = undefined;
    this.monitor.clearStep();
    this.#tell(this.#ending(state));
  }
  #ending(state: DomainState): WaitOutcome {
    const [reason, detail] = state.kind === "shutdown"
      ? [state.reason, state.detail]
      : ["destroyed", "by request"];
    return { kind: "ended", stop: this.#occurs("end", { reason, detail }).stop };
  }

  /** The host's driver failed: whoever waits is told. */
  readonly #hostFailed = (error: unknown): void => {
    this.waiters.failed(error);
    this.#tell({ kind: "paused" });
  };
  #tell(outcome: WaitOutcome): void {
    this.#stepped = undefined;
    this.waiters.tell(outcome);
  }

  // --- verbs ---

  /** Lets the domain run and waits for what comes of it. */
  run(signal?: AbortSignal): Promise<WaitOutcome> {
    const abort = signal && { signal, then: () => this.pause() };
    return this.waiters.outcome(() => this.go(), abort);
  }

  /** Runs until a breakpoint asks for a stop; the breakpoint goes then. */
  async until(b: Break, signal?: AbortSignal): Promise<Stop | GuestStopped> {
    try {
      const outcome = await this.run(signal);
      return stopOf(b, outcome) ?? this.waiters.stopped(outcome, b.kind);
    } finally {
      b.delete();
    }
  }

  /** Waits for a breakpoint of somebody else's run. */
  async wait(b: Break, signal?: AbortSignal): Promise<Stop> {
    const { inner } = this.subject, { waiters } = this;
    try {
      if (inner.ended) throw waiters.stopped(this.#ending(inner.state), b.kind);
      for (;;) {
        const outcome = await waiters.outcome(() => {}, signal && { signal, then: () => {} });
        const stop = stopOf(b, outcome);
        if (stop) return stop;
        if (outcome.kind === "ended" || outcome.kind === "loaded") {
          throw waiters.stopped(outcome, b.kind);
        }
      }
    } finally {
      b.delete();
    }
  }

  stepEnds(vcpu: VcpuSubject): Stop {
    const step = new Occurrence("step", vcpu, {}, this);
    step.freeze(true);
    this.#at = step;
    return step.stop;
  }
}

/** The stop, if it is one that the breakpoint asked for. */
const stopOf = (b: Break, outcome: WaitOutcome): Stop | undefined =>
  outcome.kind === "stop" && outcome.stop.breakpoints.includes(b.shown) ? outcome.stop : undefined;
