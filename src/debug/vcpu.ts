/**
 * A virtual processor: registers, memory at linear addresses, page tables, disassembly, steps, and
 * why it did what it did last.
 *
 * @module
 */
import type { Debugger } from "./debugger.ts";
import type { GuestDomain } from "./domain.ts";
import { step, type StepOptions, stepOut, stepOver } from "./events/steps.ts";
import type { Stop } from "./events/stop.ts";
import { bold, INSPECT, type InspectOptions } from "./values.ts";
import type { Position, VcpuSubject } from "./vcpu_subject.ts";
import {
  type Backtrace,
  backtrace,
  disassembly,
  lineAt,
  lineText,
  type Listing,
} from "./views/code.ts";
import { type ExitHistory, historyOf } from "./views/exits.ts";
import type { Memory } from "./views/memory.ts";
import { PageTables } from "./views/page_tables.ts";
import { rawOf, setRaw } from "./views/raw.ts";
import { type Registers, registersOf, registersText } from "./views/registers.ts";
import { shadowOf, type ShadowView } from "./views/shadow.ts";
import { linearMemory } from "./views/spaces.ts";
import { type Why, why } from "./views/why.ts";
import type { Address } from "../hvm/fields.ts";
import type { RunstateName } from "../xen/vcpu.ts";

/**
 * A virtual processor of a domain.
 *
 * @example
 * ```ts
 * import { Hypervisor } from "xvm";
 *
 * await using hv = await Hypervisor.demo();
 * const [vcpu] = hv.domains[0].vcpus;
 * const before = vcpu.regs.rip;
 * await vcpu.step();
 * if (vcpu.regs.rip === before) throw new Error("unexpected");
 * ```
 */
export class GuestVcpu {
  /** The domain it belongs to. */
  readonly domain: GuestDomain;
  /** Number within the domain. */
  readonly id: number;
  /** The registers; they can be set while the domain is paused, and in actions. */
  readonly regs: Registers;
  /** Bytes at linear addresses, as the vCPU's page tables map them now. */
  readonly memory: Memory;
  /** The guest's page tables, and what nested or shadow paging puts under them. */
  readonly pageTables: PageTables;
  readonly #subject: VcpuSubject;
  readonly #debugger: Debugger;

  /** @ignore Found in `vcpus` of a domain. */
  constructor(domain: GuestDomain, subject: VcpuSubject, control: Debugger) {
    this.domain = domain;
    this.id = subject.id;
    this.#subject = subject;
    this.#debugger = control;
    this.regs = registersOf(subject.file, (name, value) => subject.registerSet(name, value));
    this.pageTables = new PageTables(subject);
    this.memory = linearMemory(subject);
  }

  /** "debian, vCPU 0". */
  get name(): string {
    return this.#subject.name;
  }
  /** Where in the host's run it is. */
  get position(): Position {
    return this.#subject.position;
  }
  /**
   * What it does: "running", "runnable", "blocked" (it waits for an interrupt or a device) or "offline" (it
   * waits to be started up), as Xen's RUNSTATE_ names have it. In a paused domain it is what it goes on
   * with: the one whose turn it is on its processor is "running". In one that has ended all are offline.
   */
  get runstate(): RunstateName {
    const { inner, domain } = this.#subject;
    return domain.inner.ended ? "offline" : inner.state;
  }
  /** Number of the host's processor that it runs on. */
  get processor(): number {
    return this.#subject.inner.processor.id;
  }
  /** Instructions it has retired. */
  get instructions(): number {
    return this.#subject.inner.count;
  }
  /** Its shadow page tables, if its domain has shadow paging. */
  get shadow(): ShadowView | undefined {
    return shadowOf(this.#subject);
  }
  /** Width of the code it runs: 16, 32 or 64. */
  get bits(): 16 | 32 | 64 {
    return this.#subject.bits;
  }

  /** Linear address of its next instruction, with a symbol if one is near. */
  get place(): string {
    const { domain } = this.#subject;
    return domain.gone ?? domain.place(this.#subject.linearIp);
  }

  /** The vendor's record, VMCS or VMCB, every field by its name; null on the bare processor. */
  get raw(): Record<string, bigint> | null {
    return rawOf(this.#subject);
  }
  /**
   * Sets a field of the vendor's record. Nothing checks it before the next VM entry does.
   *
   * @param name as `raw` has it
   * @param value unsigned, up to 64 bits
   * @throws {RangeError} if there is no field of that name
   * @throws {Error} on the bare processor
   */
  setRaw(name: string, value: bigint): void {
    setRaw(this.#subject, name, value);
  }

  /**
   * Disassembles `count` instructions (10 if not given) from a linear address; from the next
   * instruction if none is given.
   *
   * @param address a linear address or a symbol's name
   * @param count 1 to 100,000
   * @returns fewer lines, where memory ends
   * @throws {RangeError} if the first address is not mapped
   */
  disassemble(address?: Address, count = 10): Listing {
    return disassembly(this.#subject, address, count);
  }

  /**
   * The calls that led here, by saved frame pointers, the innermost first. It ends where a frame
   * pointer leads to no memory, or downwards.
   *
   * @param limit the most frames
   */
  backtrace(limit = 32): Backtrace {
    return backtrace(this.#subject, limit);
  }

  /**
   * Executes `count` instructions (1 if not given) of this vCPU. A step of one ends, too, when an
   * exception or interrupt was delivered: at the first instruction of its handler. A breakpoint, on
   * whatever vCPU, ends it sooner. Others of the domain run meanwhile, unless they are to stand.
   *
   * @returns the stop at the end: of kind "step", or what came first
   * @throws {GuestStopped} if the domain ends or is paused first
   * @throws {Error} if it runs
   */
  step(count = 1, options: StepOptions = {}): Promise<Stop> {
    return step(this.#debugger, this.#subject, count, options);
  }
  /**
   * Executes one instruction; a call, a software interrupt or a repeated one as a whole.
   *
   * @throws {GuestStopped} as {@linkcode GuestVcpu.step}
   */
  stepOver(options: StepOptions = {}): Promise<Stop> {
    return stepOver(this.#debugger, this.#subject, options);
  }
  /**
   * Runs until a return instruction has taken away the present frame.
   *
   * @throws {GuestStopped} as {@linkcode GuestVcpu.step}
   */
  stepOut(options: StepOptions = {}): Promise<Stop> {
    return stepOut(this.#debugger, this.#subject, options);
  }
  /**
   * Runs to its next exit, of whatever kind.
   *
   * @throws {GuestStopped} if the domain ends, is paused, or stops elsewhere first
   * @throws {Error} on the bare processor, which nothing leaves
   */
  stepExit(): Promise<Stop> {
    return this.domain.until("any", { vcpu: this.id }) as Promise<Stop>;
  }

  /** Why the last fault, exit or failed entry happened: the check, its operands, its place in the manual. */
  why(): Why {
    this.#subject.domain.mustLive("why");
    const { at, events } = this.#debugger;
    const here = at?.vcpu === this.#subject ? at.kind : undefined;
    return why(this.#subject, { at: here, recent: events[this.id].monitor.recent });
  }
  /** Its last exits, the newest last. They are noted only while something is being observed. */
  get history(): ExitHistory {
    return historyOf(this.#subject.domain, this.#debugger.events[this.id].monitor);
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const { file, domain: { gone } } = this.#subject;
    if (gone !== undefined) return `vCPU ${this.id}: ${gone}`;
    let next: string;
    try {
      next = lineText(lineAt(this.#subject), options);
    } catch (error) {
      next = (error as Error).message;
    }
    return [
      bold(`${this.name}, ${this.domain.state}`, options),
      registersText(file, options),
      `=> ${next}`,
    ].join("\n");
  }
}
