/**
 * Something that happened in a guest: what it was, where, and what can be answered.
 *
 * @module
 */
import { exceptionVectors, VECTOR, vectorName } from "../../abi/x86/vectors.ts";
import type { GuestEvent } from "../../hvm/exit.ts";
import { exitKinds, exitRows } from "../../hvm/exit_kinds.ts";
import { options as optionsOf, u32, wrongType } from "../check.ts";
import type { Kind } from "../kinds.ts";
import { bold, counted, hex, INSPECT, type InspectOptions, shown, timeText } from "../values.ts";
import type { GuestVcpu } from "../vcpu.ts";
import type { Position } from "../vcpu_subject.ts";
import type { Registers } from "../views/registers.ts";
import type { Breakpoint } from "./breakpoint.ts";
import { injectable, shapeOf, toStatus } from "./filters.ts";
import type { Occurrence } from "./occurrence.ts";

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
  readonly breakpoints: readonly Breakpoint[];
  readonly #what: Occurrence;

  /** @ignore Made when something happens. */
  constructor(what: Occurrence, vcpu: GuestVcpu) {
    const { kind, position, breakpoints, fields } = what;
    this.kind = kind;
    this.vcpu = vcpu;
    this.position = position;
    this.breakpoints = breakpoints;
    this.#what = what;
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
    return this.#what.regs;
  }

  /** The vendor's record of the vCPU: VMCS or VMCB, every field by its name; null on bare. */
  get raw(): Record<string, bigint> | null {
    return this.#what.raw;
  }

  /**
   * The domain goes on; an exit is handled as always.
   *
   * @returns what an action returns for it
   * @throws {Error} if the guest stands here no longer, or the stop was answered already
   */
  continue(): Response {
    return this.#what.answer({ kind: "continue" });
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
    return this.#what.answer({ kind: "skip" });
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
    this.#what.mustWait("inject");
    if (!this.#what.exit) {
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
    const event: GuestEvent = number === VECTOR.NMI
      ? { type: "nmi", vector: number }
      : number < 32
      ? {
        type: "exception",
        vector: number,
        errorCode: known?.errorCode ? errorCode ?? 0 : undefined,
      }
      : { type: "external-interrupt", vector: number };
    return this.#what.answer({ kind: "inject", event });
  }
  /**
   * The guest is refused what it asked for: #GP(0), or #UD for instructions that may be absent.
   *
   * @param status what it is told instead, where the kind has such: of a "hypercall", an event or a request
   *   to xenstore an errno, of a grant's use a status (GNTST_*), by name or number
   * @throws {TypeError} for a status that the kind does not have
   * @throws {Error} as {@linkcode Stop.inject}
   */
  deny(status?: string | number): Response {
    const { row, refuses } = this.#what, given = status ?? refuses?.plainly;
    if (given === undefined) return this.inject(row?.denied ?? "#GP", 0);
    this.#what.mustWait("deny");
    if (!refuses) {
      throw new TypeError(`deny: a stop of kind "${this.kind}" is denied without a status`);
    }
    const values = refuses.values(toStatus(refuses, given));
    return this.#what.answer({ kind: "reply", values: values as Record<string, bigint> });
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
    this.#what.mustWait("reply");
    const takes = this.#what.row?.reply?.takes;
    if (!takes) {
      const those = exitKinds.filter((kind) => exitRows[kind].reply);
      throw new Error(
        `a stop of kind "${this.kind}" takes no reply; kinds that do: ${those.join(" ")}`,
      );
    }
    const allowed = shapeOf(typeof takes === "function" ? takes(this.#what.fields) : takes);
    if (this.#what.fields.write === true) {
      throw new Error(`this is a write: it takes no reply; skip() passes over it`);
    }
    const checked = optionsOf(allowed)(values, `reply to "${this.kind}"`);
    if (Object.keys(checked).length === 0) {
      throw new TypeError(
        `reply to "${this.kind}": nothing is given; it has: ${Object.keys(allowed).join(", ")}`,
      );
    }
    return this.#what.answer({ kind: "reply", values: checked as Record<string, bigint> });
  }
  /**
   * Sets registers, and goes on as {@linkcode Stop.continue}.
   *
   * @param values by name, as `regs` knows them
   * @throws {TypeError} for a register there is not, or what is no number
   * @throws {RangeError} for a value that does not fit
   */
  setRegisters(values: Readonly<Record<string, number | bigint>>): Response {
    this.#what.mustWait("setRegisters");
    if (typeof values !== "object" || values === null) {
      throw wrongType("setRegisters", "an object { name: value }", values);
    }
    for (const [name, value] of Object.entries(values)) {
      (this.vcpu.regs as Record<string, unknown>)[name] = value;
    }
    return this.continue();
  }

  /** One line: what happened. */
  describe(): string {
    return this.#what.describe();
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

const WORDS = ["continue", "stop", "skip", "deny"] as const;

/** A value as an action may return it. */
export function responseOf(value: unknown, { response, stop }: Occurrence): Response | undefined {
  if (value === undefined || value === null) return response;
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
