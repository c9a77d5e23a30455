/**
 * What happens to one vCPU: its monitor sees it, breakpoints are asked, and the debugger is told of what
 * the domain is to stop at.
 *
 * @module
 */
import type { Exit } from "../../hvm/exit.ts";
import type { Guest, Values } from "../../hvm/exit_kinds.ts";
import { Monitor, type MonitorEvent, type Observer, type Verdict } from "../../xen/monitor.ts";
import { CallInHand } from "./calls.ts";
import { type Asks, skipNext, verdictOf } from "./asks.ts";
import type { Break, BreakRecord } from "./breakpoint.ts";
import type { Breaks } from "./breaks.ts";
import { type Desk, Occurrence } from "./occurrence.ts";
import type { Response } from "./stop.ts";
import { ruleText } from "../../xen/refusal.ts";
import { isPlatform, type Kind, namesOf, type SeenExit } from "../kinds.ts";
import type { PlatformKind } from "../../xen/platform_watch.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";

/** What all vCPUs of a domain share of its debugger. */
interface SharedDesk extends Desk {
  readonly breaks: Breaks;
  readonly asks: Asks;
  /** The domain is about to stop there. */
  report(what: Occurrence): Occurrence;
  /** It is to stop when what it does is done. */
  stand(what: Occurrence): void;
}

export class VcpuEvents implements Observer {
  readonly monitor: Monitor;
  readonly #guest: Guest;
  /** What a breakpoint of kind "step" has stopped at. */
  #stepped: Occurrence | undefined;
  /** The hypercall that its guest has left for, while it is not made. */
  #call: CallInHand | undefined;

  constructor(readonly vcpu: VcpuSubject, private readonly desk: SharedDesk) {
    const { memory } = vcpu.domain.inner;
    this.monitor = new Monitor(vcpu.inner, this);
    this.#guest = {
      cpuid: (leaf, subleaf) => vcpu.cpuid(leaf, subleaf),
      hypercall: () => ({ ...this.#callInHand.decoded() }),
      isMemory: (gpa) => memory.machineAddress(gpa) >= 0,
    };
  }

  ip(): bigint {
    return this.vcpu.file.get("rip")!;
  }
  linearIp(): bigint {
    return this.vcpu.linearIp;
  }

  /** Something that happens to it now. */
  occurs(kind: Kind | "end", fields: Readonly<Record<string, unknown>>, exit?: Exit): Occurrence {
    return new Occurrence(kind, this.vcpu, fields, this.desk, exit);
  }
  /** An exit, by its own name. */
  exits(exit: Exit): Occurrence {
    return this.occurs(exit.kind, namesOf(exit, this.#guest)[0].fields, exit);
  }

  event(event: MonitorEvent): Occurrence | undefined {
    const { breaks } = this.desk;
    if (event.kind === "step") return this.desk.report(this.#stepped ?? this.occurs("step", {}));
    if (event.kind === "execute") {
      const { address } = event;
      return this.#offer("execute", { address }, breaks.table.at(address));
    }
    let stopped: Occurrence | undefined;
    for (const hit of event.hits) {
      const seen = breaks.ofHit(hit);
      if (!seen) continue;
      const what = this.#offer("watch", seen.fields, [seen.b], {});
      if (what && stopped) stopped.breakpoints.push(...what.breakpoints);
      else stopped ??= what;
    }
    return stopped && this.desk.report(stopped);
  }

  exit(exit: Exit): Verdict | undefined {
    if (exit.kind === "hypercall") return this.#hypercall(exit);
    let verdict: Verdict | undefined;
    for (const seen of namesOf(exit, this.#guest)) {
      const asked = this.desk.breaks.table.of(seen.kind);
      if (asked.size > 0) verdict ??= this.#verdict(seen, exit, asked);
    }
    return verdict;
  }

  // --- what it does with others ---

  /** It is about to; the result of one that somebody refuses. A stop is behind it. */
  happens(
    kind: PlatformKind,
    fields: Values,
    which: (b: BreakRecord) => boolean = () => true,
  ): number | undefined {
    const { asks, breaks: { table } } = this.desk;
    const asked = [...table.of(kind)].filter(({ record }) => which(record));
    if (asked.length === 0) return undefined;
    const what = this.occurs(kind, fields);
    const response = asks.ask(what, kind, fields, asked);
    switch (response?.kind) {
      case "stop":
        return void this.desk.stand(what);
      case "skip":
        return 0;
      case "reply":
        return Number(response.values.result);
    }
  }

  // --- hypercalls ---

  get #callInHand(): CallInHand {
    return this.#call ??= new CallInHand(this.vcpu);
  }
  /** Breakpoints are asked before it is made; traces, where Xen answers, when it is. */
  #hypercall(exit: Exit): Verdict | undefined {
    const { vcpu: { engine }, desk: { breaks: { table } } } = this, call = engine?.call;
    // One that is made in parts is what it was, and nobody is asked twice.
    if (call && this.#call?.goesOn) return undefined;
    this.#call = undefined;
    const later = call ? [...table.of("hypercall")].filter((b) => b.record.traces) : [];
    let verdict: Verdict | undefined;
    for (const seen of namesOf(exit, this.#guest)) {
      const asked = [...table.of(seen.kind)].filter((b) => !later.includes(b));
      if (asked.length === 0) continue;
      for (const fields of unfolded(seen.fields)) {
        verdict ??= this.#verdict({ ...seen, fields }, exit, asked);
      }
    }
    if (!call) return verdict;
    call.onMade = (result) => this.#made(exit, result);
    if (verdict && verdict.kind !== "stop") this.#answered(exit, verdict);
    return verdict;
  }
  /** The call was made, with that result; undefined: it was passed over, or something else came of it. */
  #made(exit: Exit, result: number | undefined): void {
    const made = this.#call?.decoded(result), { asks, breaks } = this.desk;
    const { call } = this.vcpu.engine ?? {};
    this.#call = undefined;
    if (call) call.onMade = undefined;
    if (!made) return;
    const refused = call?.refused?.count === this.vcpu.inner.count ? call.refused : undefined;
    const why = refused && ruleText(refused);
    for (const fields of unfolded({ ...made, ...why !== undefined && { why } })) {
      const traces = [...breaks.table.of("hypercall")].filter((b) => b.record.traces);
      if (traces.length === 0) return;
      asks.ask(this.occurs("hypercall", fields, exit), "hypercall", fields, traces);
    }
  }
  /** Somebody has answered in Xen's place. */
  #answered(exit: Exit, verdict: Verdict): void {
    if (verdict.kind === "continue") return;
    const rax = verdict.kind === "reply" ? verdict.registers.rax : undefined;
    this.#made(exit, rax === undefined ? undefined : Number(BigInt.asIntN(64, rax)));
  }

  #verdict(
    { kind, shown, fields }: SeenExit,
    exit: Exit,
    asked: Iterable<Break>,
  ): Verdict | undefined {
    const what = this.occurs(shown, fields, exit);
    const response = this.desk.asks.ask(what, kind, fields, asked);
    if (!response) return undefined;
    if (response.kind === "stop") return { kind: "stop", stop: this.desk.report(what) };
    return verdictOf(response, what);
  }

  /** An answer given while the domain stands at a stop. */
  answer(what: Occurrence, response: Response): void {
    if (response.kind === "skip" && what.kind === "execute") skipNext(what);
    else if (response.kind !== "continue" && response.kind !== "stop") {
      if (isPlatform(what.kind)) {
        throw new Error(
          `${response.kind}: a stop of kind "${what.kind}" is behind what happened; an action can answer ` +
            `before: dom.break("${what.kind}", {}, (x) => x.deny())`,
        );
      }
      const verdict = verdictOf(response, what);
      this.monitor.answer(verdict);
      if (what.exit?.kind === "hypercall") this.#answered(what.exit, verdict);
    }
  }

  /** Asks those whose event it is; what happened, if one of them wants the domain to stand still. */
  #offer(
    kind: Kind,
    fields: Readonly<Record<string, unknown>>,
    asked: Iterable<Break>,
    filtered: Readonly<Record<string, unknown>> = fields,
  ): Occurrence | undefined {
    const what = this.occurs(kind, fields);
    const response = this.desk.asks.ask(what, kind, filtered, asked);
    if (response?.kind === "skip" && kind === "execute") skipNext(what);
    return response?.kind === "stop" ? this.desk.report(what) : undefined;
  }

  /** Breakpoints of kind "step": asked after each instruction. */
  readonly stepEnds = (): boolean => {
    const what = this.occurs("step", {}), { asks, breaks } = this.desk;
    const response = asks.ask(what, "step", {}, breaks.table.of("step"));
    this.#stepped = response?.kind === "stop" ? what : undefined;
    return this.#stepped !== undefined;
  };
  /** Whoever waits has been told. */
  told(): void {
    this.#stepped = undefined;
  }

  /** The host was put into a saved state; what the domain stands at, if it is this one's exit. */
  loaded(passing: boolean, atExit: boolean): Occurrence | undefined {
    this.#call = undefined;
    const exit = this.monitor.loaded(passing, atExit);
    return exit && this.exits(exit);
  }
}

/** A call; and where it is a multicall, each of those in it. */
const unfolded = (call: Values): readonly Values[] => [
  call,
  ...(call.calls as readonly Values[] | undefined)?.flatMap(unfolded) ?? [],
];
