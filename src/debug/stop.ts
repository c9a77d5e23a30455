/**
 * Something that happened in a guest: what it was, where, and what can be answered.
 *
 * @module
 */
import type { Exit, GuestEvent } from "../hvm/exit.ts";
import { exceptionVectors, vectorName } from "../abi/x86/vectors.ts";
import { options as optionsOf, type Shape, u32, word, wrongType } from "./check.ts";
import type { Breakpoint } from "./breakpoint.ts";
import { injectable } from "./filters.ts";
import { goneText } from "./gone.ts";
import type { Kind } from "./kinds.ts";
import type { Registers } from "./registers.ts";
import { registersOf } from "./registers.ts";
import type { Vcpu } from "./vcpu.ts";
import {
  bold,
  counted,
  grouped,
  hex,
  INSPECT,
  type InspectOptions,
  shown,
  timeText,
} from "./values.ts";

/** What becomes of an event. Made by a stop's methods, and returned from actions. */
export type Response =
  /** The domain goes on; an exit is handled as always. */
  | { readonly kind: "continue" }
  /** The domain stands still. */
  | { readonly kind: "stop" }
  /** The instruction is passed over. */
  | { readonly kind: "skip" }
  | { readonly kind: "inject"; readonly event: GuestEvent }
  | { readonly kind: "reply"; readonly values: Readonly<Record<string, number | bigint>> };

/** Where in a run something happened. */
export interface Position {
  /** Instructions the host has retired. */
  readonly count: number;
  /** Guest time in nanoseconds. */
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
  readonly kind: Kind | "end";
  readonly vcpu: Vcpu;
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

  constructor(
    kind: Kind | "end",
    vcpu: Vcpu,
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

  /** The domain goes on; an exit is handled as always. */
  continue(): Response {
    return this.#answer({ kind: "continue" });
  }
  /** The hypervisor completes the instruction, as it does for an exit nobody looks at. */
  emulate(): Response {
    return this.continue();
  }
  /** The instruction is passed over without effect. */
  skip(): Response {
    return this.#answer({ kind: "skip" });
  }
  /**
   * An exception or interrupt is injected in place of the instruction.
   *
   * @param vector 0 to 255, or a name: "#GP"
   * @param errorCode 32 bits; 0 if the exception has one and none is given
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
  /** The guest is refused what it asked for: #GP(0), or #UD for instructions that may be absent. */
  deny(): Response {
    const absent = ["cpuid", "hypercall", "virtualization-instruction", "monitor", "mwait"];
    return this.inject(absent.includes(this.kind) ? "#UD" : "#GP", 0);
  }
  /**
   * The guest gets this answer in place of the hypervisor's: for "cpuid" `{ eax, ebx, ecx, edx }`
   * (what is left out is as `result`), for "hypercall" `{ result }`, for reads of "msr", "io", "cr"
   * and for "rdtsc" `{ value }`.
   */
  reply(values: Readonly<Record<string, number | bigint>>): Response {
    this.#mustWait("reply");
    const allowed = this.kind === "io"
      ? { value: word(8 * (this.#fields.size as number)) }
      : REPLIES[this.kind];
    if (!allowed) {
      throw new Error(
        `a stop of kind "${this.kind}" takes no reply; kinds that do: ${
          Object.keys(REPLIES).join(" ")
        }`,
      );
    }
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
  /** Sets registers, and goes on as {@linkcode Stop.continue}. */
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
    return replyRegisters(this.kind, this.#fields, values, this.vcpu);
  }

  /** @ignore An exit of a fault or an access, not of an instruction by its kind. */
  get amidInstruction(): boolean {
    const exit = this.#exit;
    if (!exit || exit.vectoring) return false;
    if (exit.kind === "exception") {
      return exit.event.type === "exception" && !NO_FAULTS.includes(exit.event.vector);
    }
    return exit.kind === "nested-page-fault" || exit.kind === "shadow-write";
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

  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const { count, time } = this.position;
    const ids = this.breakpoints.filter((b) => !b.temporary).map((b) => b.id);
    const by = ids.length ? `  (breakpoint ${ids.join(", ")})` : "";
    return `${bold(this.describe(), options)}${by}\n  ${this.vcpu.name}, ` +
      `${counted(count, "instruction")}, guest time ${timeText(time)}`;
  }
}

const VALUE = { value: word(64) };
/** What a reply can say, by kind. */
const REPLIES: Partial<Record<Kind | "end", Shape>> = {
  cpuid: { eax: word(32), ebx: word(32), ecx: word(32), edx: word(32) },
  msr: VALUE,
  io: VALUE,
  cr: VALUE,
  dr: VALUE,
  rdtsc: VALUE,
  hypercall: { result: word(64) },
};

const GPRS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(" ");

function replyRegisters(
  kind: string,
  fields: Readonly<Record<string, unknown>>,
  values: Readonly<Record<string, number | bigint>>,
  vcpu: Vcpu,
): Record<string, bigint> {
  const value = BigInt.asUintN(64, BigInt(values.value ?? values.result ?? 0));
  const low = (v: number | bigint) => BigInt.asUintN(32, BigInt(v));
  switch (kind) {
    case "cpuid": {
      const result = { ...fields.result as Record<string, number>, ...values };
      return {
        rax: low(result.eax),
        rbx: low(result.ebx),
        rcx: low(result.ecx),
        rdx: low(result.edx),
      };
    }
    case "msr":
    case "rdtsc":
      return { rax: low(value), rdx: value >> 32n };
    case "io": {
      const bits = 8 * (fields.size as number);
      if (bits === 32) return { rax: low(value) };
      const mask = (1n << BigInt(bits)) - 1n;
      return { rax: vcpu.regs.rax & ~mask | value & mask };
    }
    case "cr":
    case "dr":
      return { [GPRS[fields.gpr as number]]: value };
    default:
      return { rax: value };
  }
}

function describe(kind: string, f: Readonly<Record<string, unknown>>, vcpu: Vcpu): string {
  const place = (address: unknown) => vcpu.domain.name_(address as bigint);
  const direction = f.write ? "write" : "read";
  switch (kind) {
    case "execute":
      return `execute ${place(f.address)}`;
    case "watch": {
      const by = f.delivery ? " (delivery of an event)" : "";
      const change = f.write
        ? `: ${hex(f.old as bigint)} -> ${hex(f.value as bigint)}`
        : `: ${hex(f.value as bigint)}`;
      return `watch ${direction} of ${counted(f.length as number, "byte")} at ${
        place(f.address)
      }${change}${by}`;
    }
    case "cr":
      return f.write
        ? `cr${f.cr} <- ${hex(f.value as bigint)} (${f.access})`
        : `cr${f.cr} read into ${GPRS[f.gpr as number]}`;
    case "msr":
      return `msr ${direction} ${f.name}${f.write ? ` <- ${hex(f.value as bigint)}` : ""}`;
    case "io":
      return `io ${direction} port ${hex(f.port as number)}, ${counted(f.size as number, "byte")}` +
        (f.write && !f.string ? ` <- ${hex(f.value as number)}` : "") +
        (f.string ? ", string" : "");
    case "mmio":
      return `mmio ${direction} ${hex(f.address as bigint)}`;
    case "cpuid":
      return `cpuid leaf ${hex(f.leaf as number)}, subleaf ${hex(f.subleaf as number)}`;
    case "exception":
      return `exception ${f.name}${
        f.errorCode === undefined ? "" : `(${hex(f.errorCode as number)})`
      }${f.address === undefined ? "" : ` at ${place(f.address)}`}`;
    case "external-interrupt":
      return `external-interrupt ${vectorName(f.vector as number)}`;
    case "nested-page-fault":
      return `nested-page-fault at guest-physical ${hex(f.gpa as bigint)} (${
        f.fetch ? "fetch" : direction
      })`;
    case "shadow-write":
      return `shadow-write at ${place(f.linear)}, guest-physical ${hex(f.gpa as bigint)}`;
    case "end":
      return `the domain has ended: ${f.reason} (${f.detail})`;
  }
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
  override readonly name = "GuestStopped";
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
