/**
 * Something that happened in a guest: what it was, where, and what can be answered.
 *
 * @module
 */
import type { Exit, GuestEvent } from "../../hvm/exit.ts";
import { exceptionVectors, vectorName } from "../../abi/x86/vectors.ts";
import { exitKinds, type ExitRow, exitRows } from "../../hvm/exit_kinds.ts";
import { options as optionsOf, u32, wrongType } from "../check.ts";
import type { Breakpoint } from "./breakpoint.ts";
import { injectable, shapeOf } from "./filters.ts";
import { goneText } from "../gone.ts";
import { isExit, type Kind, rows } from "../kinds.ts";
import type { Registers } from "../views/registers.ts";
import { registersOf } from "../views/registers.ts";
import type { GuestVcpu } from "../vcpu.ts";
import {
  bold,
  counted,
  grouped,
  hex,
  INSPECT,
  type InspectOptions,
  shown,
  timeText,
} from "../values.ts";

/** What becomes of an event. Made by a stop's methods, and returned from actions. */
export type Response =
  /** The domain goes on; an exit is handled as always. */
  | { readonly kind: "continue" }
  /** The domain stands still. */
  | { readonly kind: "stop" }
  /** The instruction is passed over. */
  | { readonly kind: "skip" }
  /** The event is injected in place of the instruction. */
  | { readonly kind: "inject"; readonly event: GuestEvent }
  /** What the instruction is to give; it is passed over. */
  | { readonly kind: "reply"; readonly values: Readonly<Record<string, number | bigint>> };

/** Where in a run something happened. */
export interface Position {
  /** Instructions the host has retired. */
  readonly count: number;
  /** Machine time in nanoseconds: the guest's own, if it has had the host for itself. */
  readonly time: number;
}

/** #DB, #DF and #MC: no instruction is to be executed again after them. */
const NO_FAULTS: readonly number[] = [1, 8, 18];

const WORDS = ["continue", "stop", "skip", "deny"] as const;

/**
 * An event of a guest: an exit, a breakpoint, a watched access, the end of a step. The fields of its
 * kind stand on it (`stop.address`, `stop.port`, `stop.value`); `regs` is a copy of the registers as
 * they were; `vcpu` is the vCPU itself.
 *
 * The answers (`continue`, `skip`, `inject`, `deny`, `reply`) can be returned from an action, or
 * called while the domain stands at the stop: the exit is then dealt with so at once.
 */
export class Stop {
  /** What happened; "end": the guest is no more. */
  readonly kind: Kind | "end";
  /** The vCPU to which it happened. */
  readonly vcpu: GuestVcpu;
  /** When, in instructions and guest time. */
  readonly position: Position;
  /** The breakpoints that asked for it. */
  readonly breakpoints: readonly Breakpoint[] = [];
  #regs: Registers | undefined;
  #raw: Record<string, bigint> | null | undefined;
  #stale = false;
  /** Why it can no longer be answered, where it is not that the guest has gone on. */
  #outdated: string | undefined;
  #response: Response | undefined;
  readonly #exit: Exit | undefined;
  readonly #fields: Readonly<Record<string, unknown>>;

  /** @ignore Made when something happens. */
  constructor(
    kind: Kind | "end",
    vcpu: GuestVcpu,
    fields: Readonly<Record<string, unknown>>,
    exit?: Exit,
  ) {
    this.kind = kind;
    this.vcpu = vcpu;
    this.position = vcpu.position;
    this.#fields = fields;
    this.#exit = exit;
    for (const key of Object.keys(fields)) {
      Object.defineProperty(this, key, { enumerable: true, get: () => fields[key] });
    }
  }

  /**
   * The registers as they were when it happened.
   *
   * @throws {Error} for an event that did not stop the guest and was not asked while it happened
   */
  get regs(): Registers {
    if (!this.#regs) {
      if (this.#stale) {
        throw new Error(
          `regs: ${this.#gone()}; registers of an event that did not stop it are only there in its ` +
            "callback",
        );
      }
      this.#regs = registersOf(this.vcpu.file.snapshot());
    }
    return this.#regs;
  }

  /** The vendor's record of the vCPU: VMCS or VMCB, every field by its name; null on bare. */
  get raw(): Record<string, bigint> | null {
    if (this.#raw === undefined && this.#stale && !this.vcpu.domain.isAt(this)) {
      throw new Error(`raw: ${this.#gone()}; the vendor's record is kept of an exit that stopped`);
    }
    return this.#raw === undefined ? this.vcpu.raw : this.#raw;
  }

  /** @ignore The answer given, if any. */
  get response(): Response | undefined {
    return this.#response;
  }
  /** @ignore The registers will change now: kept copies stay, others are gone. */
  freeze(stopped: boolean): void {
    if (stopped) {
      void this.regs;
      if (this.#exit) this.#raw = this.vcpu.raw;
    }
    this.#stale = true;
  }

  /** @ignore The guest stands no longer here. */
  outdate(why: string): void {
    this.#outdated = why;
  }

  /** Since when this is past. */
  #gone(): string {
    const { domain, position } = this.vcpu;
    const then = `this "${this.kind}" was at instruction ${grouped(this.position.count)}`;
    return goneText(domain.inner) ??
      `the guest has gone on: ${then}, and it is ${grouped(position.count)} now`;
  }

  /** @throws {Error} where an answer comes too late: before anything is done about it */
  #mustWait(what: string): void {
    if (!this.#stale) return;
    if (!this.vcpu.domain.isAt(this)) {
      throw new StopOver(
        `${what}: ${this.#outdated ?? this.#gone()}; it can no longer be answered`,
      );
    }
    if (this.#response && this.#response.kind !== "continue") {
      throw new Error(`${what}: this stop was answered already: ${this.#response.kind}`);
    }
  }
  #answer(response: Response): Response {
    this.#mustWait(response.kind);
    if (this.#stale) this.vcpu.domain.debugger_.answer(this, response);
    return this.#response = response;
  }

  /**
   * The domain goes on; an exit is handled as always.
   *
   * @returns what an action returns for it
   * @throws {Error} if the guest stands here no longer, or the stop was answered already
   */
  continue(): Response {
    return this.#answer({ kind: "continue" });
  }
  /** The same by another name: the hypervisor completes the instruction. */
  emulate(): Response {
    return this.continue();
  }
  /**
   * The instruction is passed over without effect.
   *
   * @throws {Error} as {@linkcode Stop.continue}
   */
  skip(): Response {
    return this.#answer({ kind: "skip" });
  }
  /**
   * An exception or interrupt is injected in place of the instruction.
   *
   * @param vector 0 to 255, or a name: "#GP"
   * @param errorCode 32 bits; 0 if the exception has one and none is given
   * @throws {RangeError} for an error code that the exception has not
   * @throws {Error} at what is no exit, and as {@linkcode Stop.continue}
   */
  inject(vector: number | string, errorCode?: number): Response {
    this.#mustWait("inject");
    if (!this.#exit) {
      throw new Error(`a stop of kind "${this.kind}" is no exit: events are injected at exits`);
    }
    const number = injectable(vector, "inject");
    const known = exceptionVectors.find((e) => e.vector === number);
    if (errorCode !== undefined) {
      u32(errorCode, "inject errorCode");
      if (!known?.errorCode) {
        throw new RangeError(
          `inject: ${vectorName(number)} has no error code, ${hex(errorCode)} was given`,
        );
      }
    }
    const event: GuestEvent = number === 2 ? { type: "nmi", vector: 2 } : number < 32
      ? {
        type: "exception",
        vector: number,
        errorCode: known?.errorCode ? errorCode ?? 0 : undefined,
      }
      : { type: "external-interrupt", vector: number };
    return this.#answer({ kind: "inject", event });
  }
  /**
   * The guest is refused what it asked for: #GP(0), or #UD for instructions that may be absent.
   *
   * @throws {Error} as {@linkcode Stop.inject}
   */
  deny(): Response {
    return this.inject(exitRow(this.kind)?.denied ?? "#GP", 0);
  }
  /**
   * The guest gets this answer in place of the hypervisor's: for "cpuid" `{ eax, ebx, ecx, edx }`
   * (what is left out is as `result`), for "hypercall" `{ result }`, for reads of "msr", "io", "cr"
   * and for "rdtsc" `{ value }`.
   *
   * @throws {TypeError} for what the kind does not take
   * @throws {Error} for kinds that take no reply, for writes, and as {@linkcode Stop.continue}
   */
  reply(values: Readonly<Record<string, number | bigint>>): Response {
    this.#mustWait("reply");
    const takes = exitRow(this.kind)?.reply?.takes;
    if (!takes) {
      const those = exitKinds.filter((kind) => exitRows[kind].reply);
      throw new Error(
        `a stop of kind "${this.kind}" takes no reply; kinds that do: ${those.join(" ")}`,
      );
    }
    const allowed = shapeOf(typeof takes === "function" ? takes(this.#fields) : takes);
    if (this.#fields.write === true) {
      throw new Error(`this is a write: it takes no reply; skip() passes over it`);
    }
    const checked = optionsOf(allowed)(values, `reply to "${this.kind}"`);
    if (Object.keys(checked).length === 0) {
      throw new TypeError(
        `reply to "${this.kind}": nothing is given; it has: ${Object.keys(allowed).join(", ")}`,
      );
    }
    return this.#answer({ kind: "reply", values: checked as Record<string, bigint> });
  }
  /**
   * Sets registers, and goes on as {@linkcode Stop.continue}.
   *
   * @param values by name, as `regs` knows them
   * @throws {TypeError} for a register there is not, or what is no number
   * @throws {RangeError} for a value that does not fit
   */
  setRegisters(values: Readonly<Record<string, number | bigint>>): Response {
    this.#mustWait("setRegisters");
    if (typeof values !== "object" || values === null) {
      throw wrongType("setRegisters", "an object { name: value }", values);
    }
    for (const [name, value] of Object.entries(values)) {
      (this.vcpu.regs as Record<string, unknown>)[name] = value;
    }
    return this.continue();
  }

  /** @ignore Registers that a reply sets. */
  replyRegisters(values: Readonly<Record<string, number | bigint>>): Record<string, bigint> {
    const reply = exitRow(this.kind)?.reply;
    return { ...reply?.registers(values, this.#fields, this.vcpu.regs.rax) };
  }

  /** @ignore An exit of a fault or an access, not of an instruction by its kind. */
  get amidInstruction(): boolean {
    const exit = this.#exit;
    if (!exit || exit.vectoring) return false;
    if (exit.kind === "exception") {
      return exit.event.type === "exception" && !NO_FAULTS.includes(exit.event.vector);
    }
    return exitRow(exit.kind)?.access === true;
  }

  /** One line: what happened. */
  describe(): string {
    return describe(this.kind, this.#fields, this.vcpu);
  }
  /** @ignore A value as an action may return it. */
  static response(value: unknown, stop: Stop): Response | undefined {
    if (value === undefined || value === null) return stop.response;
    if (typeof value === "string") {
      if (value === "deny") return stop.deny();
      if ((WORDS as readonly string[]).includes(value)) return { kind: value } as Response;
    }
    if (typeof value === "object" && "kind" in value) return value as Response;
    throw new TypeError(
      `an action returns nothing (to stop), an answer such as stop.skip(), or one of ${
        WORDS.map((w) => `"${w}"`).join(" ")
      }; it returned ${shown(value)}`,
    );
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const { count, time } = this.position;
    const ids = this.breakpoints.filter((b) => !b.temporary).map((b) => b.id);
    const by = ids.length ? `  (breakpoint ${ids.join(", ")})` : "";
    return `${bold(this.describe(), options)}${by}\n  ${this.vcpu.name}, ` +
      `${counted(count, "instruction")}, guest time ${timeText(time)}`;
  }
}

const exitRow = (kind: string): ExitRow | undefined => isExit(kind) ? exitRows[kind] : undefined;

function describe(
  kind: Kind | "end",
  f: Readonly<Record<string, unknown>>,
  vcpu: GuestVcpu,
): string {
  if (kind === "end") return `the domain has ended: ${f.reason} (${f.detail})`;
  const { describe } = rows[kind];
  if (describe) return describe(f, (address) => vcpu.domain.name_(address as bigint));
  const words = Object.entries(f).filter(([, v]) => v !== undefined && typeof v !== "object")
    .map(([k, v]) => `${k} ${typeof v === "bigint" ? hex(v) : v}`);
  return `${kind}${words.length ? ` ${words.join(", ")}` : ""}`;
}

/** A stop was answered at which the guest stands no longer. */
export class StopOver extends Error {
  override readonly name = "StopOver";
}

/** A verb's guest went another way than asked: it ended, was paused, or stopped somewhere else. */
export class GuestStopped extends Error {
  /** Of the class, for those who do not have it. */
  override readonly name = "GuestStopped";
  /** @ignore Thrown by the verbs, or returned by `tryUntil`. */
  constructor(
    message: string,
    /**
     * "poweroff", "reset", "exit", "crash", "hang", "destroyed", "paused", "loaded" (the host was put
     * into a saved state), or "stopped" elsewhere.
     */
    readonly reason: string,
    /** Where it stopped instead. */
    readonly stop?: Stop,
  ) {
    super(message);
  }
}
