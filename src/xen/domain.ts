/** A domain: its memory, its platform, its vCPUs, and what it is doing. */
import type { Cpu } from "../machine/cpu.ts";
import type { Cpuid } from "../machine/cpuid.ts";
import type { Engine } from "./engine.ts";
import { amount, flag, list, record, table, tuple, u32, whole } from "../machine/shape.ts";
import { refuse, type StateRegister } from "../machine/state_block.ts";
import type { Host } from "./host.ts";
import { IoreqServers } from "./ioreq.ts";
import type { Platform } from "./platform.ts";
import { ByteLog } from "./output.ts";
import { checkCap, checkWeight, type Share, SHARE_SHAPE } from "./scheduler.ts";

/** How a domain ended, or why it stands still. */
export type DomainState =
  | { readonly kind: "paused" }
  | { readonly kind: "running" }
  /** Waits for an interrupt. */
  | { readonly kind: "blocked" }
  | { readonly kind: "shutdown"; readonly reason: ShutdownReason; readonly detail: string }
  /** Since `count` instructions of the host. */
  | { readonly kind: "destroyed"; readonly count: number };

export type ShutdownReason = "poweroff" | "reset" | "exit" | "crash" | "hang";

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

/** Bytes of console output that are kept, if nobody says otherwise. */
export const CONSOLE_MEMORY: number = 4 << 20;
/** At least so many POST codes are kept. */
const POSTS = 1000;

interface SavedDomain {
  readonly exits: Readonly<Record<string, number>>;
  readonly posts: readonly number[];
  readonly share: Share;
  readonly cpuid: readonly (readonly number[])[];
}
const SAVED = record({
  exits: table(amount),
  posts: list(amount),
  share: SHARE_SHAPE,
  cpuid: list(tuple(amount, u32, u32, u32, u32)),
});

/** Where a domain that does not run stands. */
interface SavedPlace {
  /** Instructions retired. */
  readonly count: number;
  /** It waits for an interrupt, or will when it is unpaused. */
  readonly halted: boolean;
  /** It waits, and is not paused. */
  readonly blocked: boolean;
  /** Its clock goes: `clock` is its own time less machine time; else its own time (ns). */
  readonly goes: boolean;
  readonly clock: number;
}
const PLACE = record({
  count: amount,
  halted: flag,
  blocked: flag,
  goes: flag,
  clock: whole(-(2 ** 52), 2 ** 52),
});

export class Domain {
  /** Where its state is registered, and what else comes and goes with it. */
  readonly blocks: StateRegister;
  #state: DomainState = { kind: "paused" };
  /** Console output, as far as it is kept. */
  readonly output: ByteLog;
  /** Told of each byte by the instruction that writes it. */
  readonly onByte: Set<(byte: number) => void> = new Set();
  /** Told of what was written when the domain leaves the processor: after some milliseconds at most. */
  readonly onOutput: Set<(bytes: Uint8Array) => void> = new Set();
  #told = 0;
  readonly onState: Set<(state: DomainState) => void> = new Set();
  /** Told of an error in a script's code that the domain called; it is paused then. */
  readonly onFailure: Set<(error: Error) => void> = new Set();
  /** Told when the host was put into a saved state, all of it. */
  readonly onLoaded: Set<() => void> = new Set();
  /** Told, in words, of what was left out: an answer that came too late, say. */
  readonly onNote: Set<(text: string) => void> = new Set();
  /** Device models besides its platform's. */
  readonly servers: IoreqServers = new IoreqServers();
  /** Exits by kind. */
  readonly exits: Record<string, number> = {};
  #count = 0;
  /** Its share of the processor. */
  readonly share: Share;
  /** Its own time (ns) while its clock stands; less machine time while it goes. */
  #clock = 0;
  #goes: boolean;
  #halted = false;
  /** The last POST codes. */
  posts: number[] = [];
  #ending: { reason: ShutdownReason; detail: string } | undefined;

  constructor(
    readonly host: Host,
    readonly id: number,
    readonly name: string,
    readonly type: "bare" | "hvm",
    readonly memory: DomainMemory,
    share: { readonly weight?: number; readonly cap?: number } = {},
    /** Bytes of console output that are kept. */
    consoleMemory: number = CONSOLE_MEMORY,
  ) {
    this.blocks = host.blocks.part(this.#part);
    this.output = new ByteLog(consoleMemory);
    this.share = host.scheduler.join(share.weight, share.cap);
    // The machine's time is a bare guest's own.
    this.#goes = type === "bare";
  }

  get #part(): string {
    return `domain ${this.id}`;
  }

  platform!: Platform;
  engine!: Engine;
  /** What CPUID tells the guest. */
  cpuid!: Cpuid;
  get cpu(): Cpu {
    return this.host.machine.cpu;
  }

  /** Instructions this domain has retired; exact inside a device access too. */
  get count(): number {
    return this.#count + (this.host.running === this ? this.host.ranSoFar : 0);
  }
  set count(count: number) {
    this.#count = count;
  }

  /**
   * Its own time (ns): it passes while the domain runs or waits, and stands while it is paused or
   * another has the processor. So a guest sees the same times whoever runs beside it.
   */
  get now(): number {
    if (!this.#goes) return this.#clock;
    const now = this.cpu.now + this.#clock;
    // A domain that waits is woken by its next deadline: no time passes for it after that.
    return this.#state.kind === "blocked" ? Math.min(now, this.platform.deadline()) : now;
  }
  /** Own time less machine time, while the clock goes. */
  get timeOffset(): number {
    return this.#goes ? this.#clock : this.#clock - this.cpu.now;
  }
  startClock(): void {
    if (this.#goes) return;
    this.#goes = true;
    this.#clock -= this.cpu.now;
  }
  /** Stops it, at a given own time or where it is. */
  stopClock(at: number = this.now): void {
    if (this.type === "bare") return;
    this.#clock = at;
    this.#goes = false;
  }

  /** Share of the processor beside others, 1 to 65535; 256 is everybody's. */
  get weight(): number {
    return this.share.weight;
  }
  set weight(weight: number) {
    checkWeight(weight);
    this.host.world.enter("weight", this.id, weight);
    this.host.scheduler.settle(this.share);
    this.share.weight = weight;
  }
  /** Most of the processor it gets, in percent; 0: no cap. */
  get cap(): number {
    return this.share.cap;
  }
  set cap(cap: number) {
    checkCap(cap);
    this.host.world.enter("cap", this.id, cap);
    this.host.scheduler.turn = null;
    this.share.cap = cap;
  }

  /** Registers the state of all that is the domain's. */
  register(): void {
    const { blocks } = this;
    blocks.register<SavedDomain>({
      name: "",
      version: 1,
      configuration: () => ({
        name: this.name,
        type: this.type,
        memory: this.memory.size,
        cpuid: this.cpuid.model,
        ended: this.#state.kind === "shutdown" ? this.describe() : "no",
      }),
      shape: SAVED,
      save: () => ({
        exits: { ...this.exits },
        posts: [...this.posts],
        share: { ...this.share },
        cpuid: this.cpuid.save(),
      }),
      check: ({ cpuid }) => {
        const problem = this.cpuid.problem(cpuid);
        if (problem) refuse(`domain ${this.id}: its CPUID table is refused: ${problem}`);
      },
      load: (s) => {
        for (const kind of Object.keys(this.exits)) delete this.exits[kind];
        Object.assign(this.exits, s.exits);
        this.posts = [...s.posts];
        Object.assign(this.share, s.share);
        this.cpuid.load(s.cpuid);
      },
    });
    this.engine.register(blocks);
    this.platform.register(blocks);
    // Last, because there are those that are told of it.
    blocks.register<SavedPlace>({
      name: "place",
      version: 1,
      shape: PLACE,
      save: () => ({
        count: this.count,
        halted: this.#halted,
        blocked: this.#state.kind === "blocked",
        goes: this.#goes,
        clock: this.#clock,
      }),
      load: (s) => {
        this.#count = s.count;
        this.#goes = s.goes;
        this.#clock = s.clock;
        const kind = s.blocked ? "blocked" : "paused";
        if (this.#state.kind !== kind) this.setState({ kind });
        this.#halted = s.halted;
      },
    });
  }

  get state(): DomainState {
    return this.#state;
  }
  setState(state: DomainState): void {
    if (this.#state.kind === "destroyed") return;
    // One that waits for a device outside goes on with the access when it is unpaused.
    if (state.kind === "blocked") this.#halted = !this.engine.waiting;
    else if (state.kind === "running") this.#halted = false;
    this.#state = state;
    for (const listener of [...this.onState]) listener(state);
  }
  /** It is behind a HLT: paused there, it waits when it goes on. */
  halt(): void {
    this.#halted = !this.engine.waiting;
  }
  /** It waits for an interrupt, or will when it is unpaused. */
  get halted(): boolean {
    return this.#halted;
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
    this.resume();
    this.host.wake();
  }
  /** A paused domain may run, or waits as it did; the host's driver is not told. */
  resume(): void {
    if (this.#state.kind !== "paused") return;
    this.setState({ kind: this.#halted ? "blocked" : "running" });
    if (this.#halted && !this.engine.waiting) this.startClock();
  }
  pause(): void {
    if (this.ended || this.#state.kind === "paused") return;
    if (this.host.running === this) this.cpu.stop();
    else this.stopClock();
    this.setState({ kind: "paused" });
  }

  /** Ends it and gives back all it holds, at whatever moment. */
  destroy(): void {
    const { host } = this;
    if (this.#state.kind === "destroyed") return;
    this.cpu.stop();
    this.setState({ kind: "destroyed", count: this.cpu.count });
    const at = host.domains.indexOf(this);
    if (at >= 0) host.domains.splice(at, 1);
    host.blocks.drop(this.#part);
    if (host.scheduler.turn?.domain === this.id) host.scheduler.turn = null;
    // What runs it has to come back first: a device of its, or an observer, may have asked for it.
    if (host.running === this) host.whenOff = () => this.engine.destroy();
    else this.engine.destroy();
  }

  /** Console input from outside. */
  input(bytes: Uint8Array): void {
    this.host.world.enter("input", this.id, bytes);
    this.platform.input(bytes);
    this.host.wake();
  }

  /** A script's code that the domain called has failed: it stands still where it was called. */
  fail(error: Error): void {
    if (this.onFailure.size === 0) {
      queueMicrotask(() => {
        throw error;
      });
    }
    for (const listener of this.onFailure) listener(error);
    this.pause();
  }
  note(text: string): void {
    for (const listener of this.onNote) listener(text);
  }

  /** The guest writes a byte to its console. */
  emit(byte: number): void {
    // Before what they have not been told is overwritten.
    if (this.output.total - this.#told >= this.output.limit) this.flush();
    this.output.push(byte);
    for (const listener of this.onByte) listener(byte);
  }
  /** What it wrote since the last time goes to those who only show it. */
  flush(): void {
    const { output } = this;
    if (this.#told === output.total) return;
    const bytes = this.onOutput.size ? output.since(this.#told) : undefined;
    this.#told = output.total;
    if (bytes) { for (const listener of [...this.onOutput]) listener(bytes); }
  }
  /** The guest writes a POST code. */
  post(code: number): void {
    this.posts.push(code);
    if (this.posts.length >= 2 * POSTS) this.posts.splice(0, POSTS);
  }

  describe(): string {
    const s = this.#state;
    return s.kind === "shutdown" ? `${s.reason} (${s.detail})` : s.kind;
  }
}
