/**
 * The debugger of one domain: what happens to its vCPUs goes to breakpoints, what they answer to the
 * domain, and where it comes to stand to those who wait.
 *
 * @module
 */
import { amount, flag, list, orNull, record } from "../machine/shape.ts";
import { refuse } from "../machine/state_block.ts";
import type { DomainState } from "../xen/domain.ts";
import { HVM_BLOCK, HvmEngine } from "../xen/hvm.ts";
import type { PlatformWatch } from "../xen/platform_watch.ts";
import { Asks } from "./events/asks.ts";
import type { Break, Breakpoint } from "./events/breakpoint.ts";
import { Breaks } from "./events/breaks.ts";
import type { Desk, Occurrence } from "./events/occurrence.ts";
import type { Stepping } from "./events/steps.ts";
import type { Response, Stop } from "./events/stop.ts";
import { Waiters, type WaitOutcome } from "./events/waiters.ts";
import type { Subject } from "./subject.ts";
import type { GuestVcpu } from "./vcpu.ts";
import { VcpuEvents } from "./events/vcpu_events.ts";
import type { VcpuSubject } from "./vcpu_subject.ts";
import type { GuestStopped } from "./waits.ts";

/** How the domain stands, for those who look at it. */
interface Standing {
  /** Of each vCPU: the breakpoint at its present address was reached, going on passes it. */
  readonly passing: readonly boolean[];
  /** The vCPU at whose exit it stands, which can be answered. */
  readonly atExit: number | null;
}

export class Debugger implements Desk, Stepping {
  /** What happens to each vCPU. */
  readonly events: readonly VcpuEvents[];
  readonly waiters: Waiters;
  readonly breaks: Breaks;
  readonly asks: Asks;
  /** What the domain is about to stop at. */
  #reported: Occurrence | undefined;
  /** Where the domain stands. */
  #at: Occurrence | undefined;
  #loaded: Standing | undefined;

  constructor(
    readonly subject: Subject,
    /** The vCPUs as scripts hold them: stops have them. */
    readonly vcpus: readonly GuestVcpu[],
  ) {
    const { inner } = subject;
    this.events = subject.vcpus.map((vcpu) => new VcpuEvents(vcpu, this));
    this.waiters = new Waiters(subject);
    this.breaks = new Breaks(
      subject,
      this.events,
      this.#happens,
      // Traces are told with the answer.
      (fields, answered) =>
        this.#acts(0).happens("xenstore", fields, ({ traces }) => traces === answered),
    );
    this.asks = new Asks(
      subject,
      this.waiters,
      () => this.go(),
      ({ stop }) => this.#tell({ kind: "stop", stop }),
    );
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
  #of({ id }: VcpuSubject): VcpuEvents {
    return this.events[id];
  }

  /** An answer given while the domain stands at a stop. */
  answer(what: Occurrence, response: Response): void {
    this.#of(what.vcpu).answer(what, response);
  }
  /** The domain is about to stop there. */
  report(what: Occurrence): Occurrence {
    what.freeze(true);
    return this.#reported = what;
  }

  /** What the domain does with others: of the vCPU that does it, or whose affair it is. */
  readonly #happens: PlatformWatch = (kind, vcpu, fields) => this.#acts(vcpu).happens(kind, fields);
  /** The vCPU that is at it; another if none of the domain's runs. */
  #acts(otherwise: number): VcpuEvents {
    const { host: { running }, inner } = this.subject;
    return this.events[running?.domain === inner ? running.id : otherwise];
  }
  /** It has happened that the domain is to stand still for: at once, or when what it does is done. */
  stand(what: Occurrence): void {
    const { host: { running }, inner } = this.subject;
    this.report(what);
    if (running?.domain === inner && running.engine instanceof HvmEngine) {
      running.engine.standFor(what);
    } else inner.pause();
  }

  // --- saving and loading ---

  /** Registers how the domain stands for those who look at it. */
  #register(): void {
    const { subject, events } = this;
    subject.inner.blocks.register<Standing>({
      name: "standing",
      version: 2,
      shape: record({ passing: list(flag), atExit: orNull(amount) }),
      hashed: false,
      save: () => ({
        passing: events.map(({ monitor }) => monitor.passing),
        atExit: this.#atExit?.id ?? null,
      }),
      check: ({ passing, atExit }, beside) => {
        const { name } = subject, vcpus = events.length;
        if (passing.length !== vcpus || (atExit ?? 0) >= vcpus) {
          refuse(`the saved state says of other vCPUs than domain ${name} has how they stand`);
        }
        if (atExit === null) return;
        const vcpu = beside(`vcpu ${atExit} ${HVM_BLOCK}`) as { pending: unknown } | undefined;
        if (!vcpu?.pending) {
          refuse(`the saved state says that domain ${name} stands at an exit: it has none`);
        }
      },
      load: (standing) => this.#loaded = standing,
    });
  }
  /** The vCPU at whose exit the domain stands. */
  get #atExit(): VcpuSubject | undefined {
    const at = this.#at;
    const here = ({ vcpu, monitor: { stoppedAt } }: VcpuEvents) =>
      stoppedAt !== undefined && (!at || (at.vcpu === vcpu && at.exit === stoppedAt));
    return this.events.find(here)?.vcpu;
  }

  /** The host was put into a saved state: what was under way is over, breakpoints stay. */
  #wasLoaded(): void {
    const { passing, atExit } = this.#loaded!;
    const stands = this.events.map((each, n) => each.loaded(passing[n], n === atExit));
    for (const past of [this.#at, this.#reported]) {
      past?.outdate("the host was put into a saved state since");
    }
    this.#reported = undefined;
    this.asks.overtake();
    this.#at = stands.find((what) => what);
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
    const { acting } = this.asks, { id, host, inner } = this.subject, { kind } = inner.state;
    this.asks.overtake();
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
      if (this.asks.acting) return;
      if (what) this.#tell({ kind: "stop", stop: what.stop });
      // A driver that failed pauses first, and says so after.
      else {
        queueMicrotask(() => {
          if (this.subject.inner.state.kind === "paused") this.#tell({ kind: "paused" });
        });
      }
      return;
    }
    const gone = state.kind === "destroyed";
    if (gone) this.subject.host.onError.delete(this.#hostFailed);
    this.#reported = this.#at = undefined;
    if (gone) this.breaks.disarm();
    for (const { monitor } of this.events) {
      if (gone) monitor.clear();
      else monitor.clearStep();
    }
    this.#tell(this.#ending(state));
  }
  #ending(state: DomainState): WaitOutcome {
    const { vcpu, reason, detail } = state.kind === "shutdown"
      ? state
      : { vcpu: 0, reason: "destroyed", detail: "by request" };
    return { kind: "ended", stop: this.events[vcpu].occurs("end", { reason, detail }).stop };
  }

  /** The host's driver failed: whoever waits is told. */
  readonly #hostFailed = (error: unknown): void => {
    this.waiters.failed(error);
    this.#tell({ kind: "paused" });
  };
  #tell(outcome: WaitOutcome): void {
    for (const each of this.events) each.told();
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
    const step = this.#of(vcpu).occurs("step", {});
    step.freeze(true);
    this.#at = step;
    return step.stop;
  }
}

/** The stop, if it is one that the breakpoint asked for. */
const stopOf = (b: Break, outcome: WaitOutcome): Stop | undefined =>
  outcome.kind === "stop" && outcome.stop.breakpoints.includes(b.shown) ? outcome.stop : undefined;
