/** A domain: its memory, its platform, its vCPUs, and what it is doing. */
import type { Cpu } from "../machine/cpu.ts";
import type { Cpuid } from "../machine/cpuid.ts";
import type { Host } from "./host.ts";
import type { Platform } from "./platform.ts";

/** How a domain ended, or why it stands still. */
export type DomainState =
  | { readonly kind: "paused" }
  | { readonly kind: "running" }
  /** Waits for an interrupt. */
  | { readonly kind: "blocked" }
  | { readonly kind: "shutdown"; readonly reason: ShutdownReason; readonly detail: string }
  | { readonly kind: "destroyed" };

export type ShutdownReason = "poweroff" | "reset" | "exit" | "crash" | "hang";

/** Why a domain's processor came back to the scheduler. */
export type SliceEnd =
  /** The budget is used up. */
  | { readonly kind: "budget" }
  /** Nothing to do until an interrupt. */
  | { readonly kind: "blocked" }
  /** Somebody wants the domain to stand still: a breakpoint, a step, a watch, an exit asked for. */
  | { readonly kind: "stop"; readonly stop: unknown }
  | { readonly kind: "end"; readonly reason: ShutdownReason; readonly detail: string };

/** How a kind of domain is executed: on the processor itself, or in a hardware virtual machine. */
export interface Engine {
  /** Runs at most `budget` instructions (ns). */
  run(budget: number): SliceEnd;
  /** An interrupt may be pending now for a blocked guest. */
  runnable(): boolean;
  /** An access waits for the answer of a device model outside. */
  readonly waiting: boolean;
  /** The register file of the vCPU is in the processor (before) or in its own store (after). */
  load(): void;
  unload(): void;
  /** Everything the engine holds, given back. */
  destroy(): void;
}

/** Guest-physical memory of a domain. */
export interface DomainMemory {
  /** Bytes. */
  readonly size: number;
  /** @throws {RangeError} naming the address that is no memory of the domain. */
  read(gpa: number, length: number): Uint8Array;
  write(gpa: number, bytes: Uint8Array): void;
  /** Machine address of a guest-physical one, -1 if there is no memory. */
  machineAddress(gpa: number): number;
}

export class Domain {
  #state: DomainState = { kind: "paused" };
  /** Bytes of console output so far. */
  readonly output: Uint8Array[] = [];
  readonly onOutput: Set<(bytes: Uint8Array) => void> = new Set();
  readonly onState: Set<(state: DomainState) => void> = new Set();
  /** Exits by kind. */
  readonly exits: Record<string, number> = {};
  /** Instructions this domain has retired. */
  count = 0;
  posts: number[] = [];
  #ending: { reason: ShutdownReason; detail: string } | undefined;

  constructor(
    readonly host: Host,
    readonly id: number,
    readonly name: string,
    readonly type: "bare" | "hvm",
    readonly memory: DomainMemory,
  ) {}

  platform!: Platform;
  engine!: Engine;
  /** What CPUID tells the guest. */
  cpuid!: Cpuid;
  get cpu(): Cpu {
    return this.host.machine.cpu;
  }

  get state(): DomainState {
    return this.#state;
  }
  setState(state: DomainState): void {
    if (this.#state.kind === "destroyed") return;
    this.#state = state;
    for (const listener of [...this.onState]) listener(state);
  }
  get ended(): boolean {
    return this.#state.kind === "shutdown" || this.#state.kind === "destroyed";
  }

  /** A device says that the guest ends itself; it takes effect when the instruction is done. */
  end(reason: ShutdownReason, detail: string): void {
    this.#ending ??= { reason, detail };
    this.cpu.stop();
  }
  get ending(): { reason: ShutdownReason; detail: string } | undefined {
    return this.#ending;
  }

  /** Lets the domain run; the host's driver does the rest. */
  unpause(): void {
    if (this.ended) throw new Error(`domain ${this.name} has ended: ${this.describe()}`);
    if (this.#state.kind === "paused") this.setState({ kind: "running" });
    this.host.wake();
  }
  pause(): void {
    if (this.ended || this.#state.kind === "paused") return;
    this.cpu.stop();
    this.setState({ kind: "paused" });
  }

  /** Console input from outside. */
  input(bytes: Uint8Array): void {
    this.host.world.enter("input", this.id, bytes);
    this.platform.input(bytes);
    this.host.wake();
  }

  emit(bytes: Uint8Array): void {
    this.output.push(bytes);
    for (const listener of this.onOutput) listener(bytes);
  }

  describe(): string {
    const s = this.#state;
    return s.kind === "shutdown" ? `${s.reason} (${s.detail})` : s.kind;
  }
}
