/**
 * Something that happened, as the debugger holds it: a {@linkcode Stop} shows it to scripts, and answers
 * it.
 *
 * @module
 */
import type { Exit } from "../../hvm/exit.ts";
import { type ExitRow, exitRows, type Refusal } from "../../hvm/exit_kinds.ts";
import { VECTOR } from "../../abi/x86/vectors.ts";
import { eventText, isExit, type Kind, rows } from "../kinds.ts";
import { grouped } from "../values.ts";
import type { GuestVcpu } from "../vcpu.ts";
import type { Position, VcpuSubject } from "../vcpu_subject.ts";
import { rawOf } from "../views/raw.ts";
import { type Registers, registersOf } from "../views/registers.ts";
import type { Breakpoint } from "./breakpoint.ts";
import { type Response, Stop } from "./stop.ts";

/** Where the domain stands, and what answers it there. */
export interface Desk {
  readonly at: Occurrence | undefined;
  answer(occurrence: Occurrence, response: Response): void;
  /** The vCPU as scripts hold it. */
  shown(vcpu: VcpuSubject): GuestVcpu;
}

/** These are no faults: no instruction is to be executed again after them. */
const NO_FAULTS: readonly number[] = [VECTOR.DB, VECTOR.DF, VECTOR.MC];

/** An event of a guest. */
export class Occurrence {
  /** When, in instructions and guest time. */
  readonly position: Position;
  /** Those that asked for a stop. */
  readonly breakpoints: Breakpoint[] = [];
  /** It as scripts hold it. */
  readonly stop: Stop;
  /** The answer given, if any. */
  response: Response | undefined;
  #regs: Registers | undefined;
  #raw: Record<string, bigint> | null | undefined;
  #stale = false;
  /** Why it can no longer be answered, where it is not that the guest has gone on. */
  #outdated: string | undefined;

  constructor(
    readonly kind: Kind | "end",
    readonly vcpu: VcpuSubject,
    readonly fields: Readonly<Record<string, unknown>>,
    readonly desk: Desk,
    readonly exit?: Exit,
  ) {
    this.position = vcpu.position;
    this.stop = new Stop(this, desk.shown(vcpu));
  }

  /** The row of the exit that it is; undefined of others. */
  get row(): ExitRow | undefined {
    return isExit(this.kind) ? exitRows[this.kind] : undefined;
  }
  /** What it can be refused with. */
  get refuses(): Refusal | undefined {
    return this.kind === "end" ? undefined : rows[this.kind].refuses;
  }
  get #standsHere(): boolean {
    return this.desk.at === this;
  }

  /** The registers as they were. */
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
  /** The vendor's record as it was. */
  get raw(): Record<string, bigint> | null {
    if (this.#raw !== undefined) return this.#raw;
    if (this.#stale && !this.#standsHere) {
      throw new Error(`raw: ${this.#gone()}; the vendor's record is kept of an exit that stopped`);
    }
    return rawOf(this.vcpu);
  }

  /** The registers will change now: kept copies stay, others are gone. */
  freeze(stopped: boolean): void {
    if (stopped) {
      void this.regs;
      if (this.exit) this.#raw = rawOf(this.vcpu);
    }
    this.#stale = true;
  }
  /** The guest stands no longer here. */
  outdate(why: string): void {
    this.#outdated = why;
  }
  /** Since when this is past. */
  #gone(): string {
    const { domain, position } = this.vcpu;
    const then = `this "${this.kind}" was at instruction ${grouped(this.position.count)}`;
    return domain.gone ??
      `the guest has gone on: ${then}, and it is ${grouped(position.count)} now`;
  }

  /** @throws {Error} where an answer comes too late: before anything is done about it */
  mustWait(what: string): void {
    if (!this.#stale) return;
    if (!this.#standsHere) {
      throw new StopOver(
        `${what}: ${this.#outdated ?? this.#gone()}; it can no longer be answered`,
      );
    }
    if (this.response && this.response.kind !== "continue") {
      throw new Error(`${what}: this stop was answered already: ${this.response.kind}`);
    }
  }
  answer(response: Response): Response {
    this.mustWait(response.kind);
    if (this.#stale) this.desk.answer(this, response);
    return this.response = response;
  }

  /** Registers that a reply sets. */
  replyRegisters(values: Readonly<Record<string, number | bigint>>): Record<string, bigint> {
    const { row, fields, vcpu } = this;
    return { ...row?.reply?.registers(values, fields, vcpu.file.get("rax")!) };
  }
  /** An exit of a fault or an access, not of an instruction by its kind. */
  get amidInstruction(): boolean {
    const { exit } = this;
    if (!exit || exit.vectoring) return false;
    if (exit.kind === "exception") {
      return exit.event.type === "exception" && !NO_FAULTS.includes(exit.event.vector);
    }
    return exitRows[exit.kind].access === true;
  }

  /** One line: what happened. */
  describe(): string {
    return eventText(this.kind, this.fields, this.vcpu.domain);
  }
}

/** A stop was answered at which the guest stands no longer. */
export class StopOver extends Error {
  override readonly name = "StopOver";
}
