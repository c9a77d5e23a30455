/**
 * Asking breakpoints what becomes of an event: their predicates, their actions, and the strongest of
 * their answers.
 *
 * @module
 */
import type { Verdict } from "../../xen/monitor.ts";
import type { Kind } from "../kinds.ts";
import type { Subject } from "../subject.ts";
import { hex, throwLate } from "../values.ts";
import { lineAt, nextInstruction } from "../views/code.ts";
import { held } from "../waits.ts";
import type { Break, Decision } from "./breakpoint.ts";
import type { Filter } from "./filters.ts";
import { type Occurrence, StopOver } from "./occurrence.ts";
import type { Response } from "./stop.ts";
import type { Waiters } from "./waiters.ts";

export class Asks {
  /** An asynchronous action is under way; whoever waits is not told yet. */
  #acting: Promise<void> | undefined;

  constructor(
    readonly subject: Subject,
    readonly waiters: Waiters,
    /** Lets the domain go on. */
    readonly go: () => void,
    /** The domain has stopped there, and whoever waits is to be told. */
    readonly stopAt: (what: Occurrence) => void,
  ) {}

  get acting(): boolean {
    return this.#acting !== undefined;
  }
  /** What is under way is overtaken: its answer is nobody's. */
  overtake(): void {
    this.#acting = undefined;
  }

  /** The strongest answer of the breakpoints that match, of those whose event it may be. */
  ask(
    what: Occurrence,
    kind: Kind,
    fields: Readonly<Record<string, unknown>>,
    candidates: Iterable<Break>,
  ): Response | undefined {
    let answer: Response | undefined;
    const waiting: Promise<Response | undefined>[] = [];
    const asked: Break[] = [];
    // Actions may add some and take some away.
    for (const b of [...candidates]) {
      let decision: Decision;
      try {
        if (!takes(b, what, kind, fields)) continue;
        decision = this.#act(b, what);
      } catch (error) {
        this.waiters.failed(error);
        decision = { kind: "respond", response: { kind: "stop" } };
      }
      if (decision.kind === "none") {
        decision.begun?.catch((error) => traceFailed(b, error));
        continue;
      }
      if (decision.kind === "wait") waiting.push(decision.promise);
      else if (!answer || decision.response.kind === "stop" || answer.kind === "continue") {
        if (answer?.kind !== "stop") answer = decision.response;
      }
      if (decision.kind === "wait" || decision.response.kind === "stop") asked.push(b);
    }
    what.breakpoints.push(...asked.map((b) => b.shown));
    if (waiting.length > 0 && answer?.kind !== "stop") {
      this.#await(what, waiting);
      answer = { kind: "stop" };
    }
    what.freeze(answer?.kind === "stop");
    return answer;
  }

  #act(b: Break, what: Occurrence): Decision {
    const { subject } = this;
    const decision = b.record.traces ? b.act(what) : held(
      subject,
      `the action of ${b.name}`,
      () => b.act(what),
      (d) => d.kind === "wait" && d.promise,
    );
    // What the action told others of is dealt with before the guest goes on.
    if (b.acts) subject.host.yield();
    return decision;
  }

  /** The domain stands still until the actions are done; then goes on, or has stopped there. */
  #await(what: Occurrence, promises: Promise<Response | undefined>[]): void {
    const acting = Promise.all(promises).then((responses) => {
      if (this.#acting !== acting) return;
      this.#acting = undefined;
      if (responses.every((r) => r && r.kind !== "stop")) this.go();
      else this.stopAt(what);
    }, (error) => {
      // Of one that was overtaken (the host was loaded, say) the answer is nobody's.
      if (this.#acting !== acting && error instanceof StopOver) return;
      if (this.#acting === acting) this.#acting = undefined;
      this.waiters.failed(error);
      this.stopAt(what);
    });
    this.#acting = acting;
  }
}

const takes = (b: Break, what: Occurrence, kind: Kind, fields: Filter) =>
  b.takes(what, kind === "watch" || kind === "any" ? { ...fields, ...b.filter } : fields);

/** Nobody waits for what a trace does: its first failure is told, and turns it off. */
function traceFailed(trace: Break, error: unknown): void {
  if (!trace.enabled) return;
  trace.enabled = false;
  throwLate(new Error(`${trace.name}: its action failed, and it is off now`, { cause: error }));
}

/**
 * What an answer is to the monitor. An access that faults leaves amid its instruction: the code tells
 * how long that is.
 */
export function verdictOf(response: Response, what: Occurrence): Verdict {
  switch (response.kind) {
    case "reply":
      return { kind: "reply", registers: what.replyRegisters(response.values) };
    case "stop":
      return { kind: "continue" };
    case "skip": {
      if (!what.amidInstruction) return response;
      const instruction = nextInstruction(what.vcpu);
      if (instruction) return { kind: "skip", length: instruction.length };
      throw new Error(
        `skip() of an instruction was asked for, and there is none that can be read at ` +
          hex(what.vcpu.file.get("rip")!),
      );
    }
  }
  return response;
}

/** The instruction at a breakpoint is passed over. */
export function skipNext({ vcpu }: Occurrence): void {
  const rip = BigInt.asUintN(
    vcpu.bits === 64 ? 64 : 32,
    vcpu.file.get("rip")! + BigInt(lineAt(vcpu).bytes.length),
  );
  vcpu.file.set("rip", rip);
  vcpu.registerSet("rip", rip);
}
