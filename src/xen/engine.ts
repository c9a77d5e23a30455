/**
 * What executes a vCPU, and who looks on: an engine runs it in parts, and between them calls
 * those who want to see something, in their order. With nobody there it runs on.
 */
import type { Exit, GuestEvent } from "../hvm/exit.ts";
import type { ExitWish } from "../hvm/exit_kinds.ts";
import type { StateRegister } from "../machine/state_block.ts";
import type { Domain, ShutdownReason } from "./domain.ts";
import type { Vcpu } from "./vcpu.ts";

/** Why a vCPU's processor came back to the scheduler. */
export type SliceEnd =
  /** The budget is used up. */
  | { readonly kind: "budget" }
  /** Nothing to do until an interrupt. */
  | { readonly kind: "blocked" }
  /** INIT has come: nothing to do until it is started up. */
  | { readonly kind: "offline" }
  /** Somebody wants the domain to stand still: a breakpoint, a step, a watch, an exit asked for. */
  | {
    readonly kind: "stop";
    readonly stop: unknown;
    /** When it goes on it has nothing to do until an interrupt. */
    readonly blocked?: boolean;
  }
  | { readonly kind: "end"; readonly reason: ShutdownReason; readonly detail: string };

/** Why a part of a run is over. */
export type PartEnd =
  | SliceEnd
  /** A breakpoint is next. */
  | { readonly kind: "breakpoint" }
  /** Watched memory was accessed. */
  | { readonly kind: "watch" };

/** Made once: runs are hot. */
export const BUDGET: SliceEnd = { kind: "budget" };
export const BLOCKED: SliceEnd = { kind: "blocked" };
export const OFFLINE: SliceEnd = { kind: "offline" };
/** By what the processor stopped for. */
export const SEEN: Readonly<Record<"breakpoint" | "watch", PartEnd>> = {
  breakpoint: { kind: "breakpoint" },
  watch: { kind: "watch" },
};

/** What becomes of an exit that was shown. */
export type Verdict =
  /** Handled as if nobody had looked. */
  | { readonly kind: "continue" }
  /** The domain stops; the exit waits, and is handled when the domain goes on. */
  | { readonly kind: "stop"; readonly stop: unknown }
  /** The instruction is passed over without effect; its length where the exit does not tell. */
  | { readonly kind: "skip"; readonly length?: number }
  /** The event is injected in its place. */
  | { readonly kind: "inject"; readonly event: GuestEvent }
  /** Registers get these values, and the instruction is passed over. */
  | { readonly kind: "reply"; readonly registers: Readonly<Record<string, bigint>> };

/** What an engine calls of who looks on. A stop that it gives is what the domain stops with. */
export interface EngineHooks {
  /** The vCPU is on the processor; it is about to leave it. */
  attached(): void;
  detaching(): void;
  /** A run begins. */
  started(): void;
  /** A part of it does: the most instructions it may have. */
  begin(): number;
  /** The part is over; so many instructions were executed. */
  ran(instructions: number): void;
  /** It ended at a breakpoint, its own or somebody else's. */
  breakpoint(): unknown;
  /** It ended otherwise, and the domain could go on. */
  done(): unknown;
  /** Somebody's step ended here: going on passes a breakpoint, so it is told now. */
  stepEnded(): void;
  /** An exit, before it is handled. */
  exit(exit: Exit): Verdict | undefined;
  /** The exits it wants to see; undefined if none. */
  readonly exits: readonly ExitWish[] | undefined;
}

/** How a vCPU is executed: on the processor itself, or in a hardware virtual machine. */
export abstract class Engine {
  /** Who looks on, in the order they came. */
  readonly hooks: EngineHooks[] = [];

  constructor(readonly vcpu: Vcpu) {}

  get domain(): Domain {
    return this.vcpu.domain;
  }

  /** Runs at most `budget` instructions (ns). */
  run(budget: number): SliceEnd {
    if (this.hooks.length > 0) return this.#observed(budget);
    const end = this.execute(budget);
    return end.kind === "breakpoint" || end.kind === "watch" ? BUDGET : end;
  }

  #observed(budget: number): SliceEnd {
    const { domain, cpu, processor } = this.vcpu, until = cpu.now + budget;
    for (const hook of [...this.hooks]) hook.started();
    // At least once: what is unfinished may have no time left.
    do {
      const { count } = cpu;
      const most = this.hooks.map((hook) => hook.begin());
      const part = this.execute(Math.min(until - cpu.now, ...most));
      const end = this.#after(part, cpu.count - count);
      if (end) return end;
      // A device ended the domain, or somebody paused it from within.
      if (domain.ending || !domain.runs) break;
      if (cpu.machine.due() || cpu.now >= processor.until) break;
    } while (cpu.now < until);
    return BUDGET;
  }

  /** What a part of a run led to: the end of the run, or undefined to go on. */
  #after(part: PartEnd, instructions: number): SliceEnd | undefined {
    // What is told may make them come and go.
    const hooks = [...this.hooks];
    for (const hook of hooks) hook.ran(instructions);
    if (part.kind === "end" || part.kind === "stop" || part.kind === "offline") return part;
    const stops = hooks.map((hook) => part.kind === "breakpoint" ? hook.breakpoint() : hook.done());
    const stop = stops.find((it) => it !== undefined), blocked = part.kind === "blocked";
    if (stop !== undefined) return { kind: "stop", stop, blocked };
    return blocked ? BLOCKED : undefined;
  }

  /** Something has come for the vCPU: it is looked at before the guest runs on, or has its turn. */
  poke(): void {
    this.domain.host.kick(this.vcpu);
  }

  /** Another vCPU runs: before this one goes on, it looks what that has changed. */
  othersRan(): void {}

  /** The register file of the vCPU is in the processor (before) or in its own store (after). */
  load(): void {
    this.attach();
    for (const hook of this.hooks) hook.attached();
  }
  unload(): void {
    for (const hook of this.hooks) hook.detaching();
    this.detach();
  }

  /** Runs at most so many instructions, or until there is something to see. */
  protected abstract execute(budget: number): PartEnd;
  protected abstract attach(): void;
  protected abstract detach(): void;
  /** Linear address of its next instruction. */
  abstract readonly linearIp: bigint;
  /** What a blocked guest waits for is there: something that it can take. */
  abstract runnable(): boolean;
  /** One that is offline begins, if somebody has started it up. */
  abstract startUp(): boolean;
  /** What the guest's time-stamp counter reads now. */
  abstract readonly tsc: bigint;
  /** It could take an interrupt; where it is not, only an NMI ends its wait. */
  abstract readonly interruptible: boolean;
  /** An access waits for the answer of a device model outside. */
  abstract readonly waiting: boolean;
  /** An exit is to be handled that somebody stopped at. */
  get unfinished(): boolean {
    return false;
  }
  /** Registers what is state besides the contents of memory. */
  abstract register(blocks: StateRegister): void;
  /**
   * Drops what is derived from the guest and kept in memory, and what an observer asked for: before
   * all of memory is looked at or changed. The vCPU is off the processor.
   */
  abstract quiesce(): void;
  /** Everything the engine holds, given back. */
  abstract destroy(): void;
}
