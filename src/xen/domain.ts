/** A domain: its memory, its vCPUs, its motherboard, and what it is doing. */
import type { Cpuid } from "../machine/cpuid.ts";
import type { Machine } from "../machine/machine.ts";
import { amount, flag, list, record, tuple, u32, whole } from "../machine/shape.ts";
import { refuse, type StateRegister, type StateRegistry } from "../machine/state_block.ts";
import type { ConsoleLog } from "./console_log.ts";
import { IoreqServers } from "./ioreq.ts";
import type { Platform } from "./platform.ts";
import { ByteLog } from "./output.ts";
import type { Processor } from "./processor.ts";
import {
  type Allotment,
  ALLOTMENT_SHAPE,
  checkCap,
  checkWeight,
  type Scheduler,
} from "./scheduler.ts";
import { type SavedVcpu, Vcpu } from "./vcpu.ts";
import type { World } from "./world.ts";
import type { Peer, XenInterface } from "./interface.ts";

/** Whose time a domain has: its own, or the host's. */
export type ClockName = "own" | "host";

/** How a domain ended, or why it stands still. */
export type DomainState =
  | { readonly kind: "paused" }
  | { readonly kind: "running" }
  /** All its vCPUs wait. */
  | { readonly kind: "blocked" }
  | ({ readonly kind: "shutdown" } & GuestEnd)
  /** Since `count` instructions of the host. */
  | { readonly kind: "destroyed"; readonly count: number };

/** How a domain ends by itself. */
export interface GuestEnd {
  readonly reason: ShutdownReason;
  readonly detail: string;
  /** Number of the vCPU that did it; the first where it was none. */
  readonly vcpu: number;
}
/**
 * What a domain ended by. `suspend` and `soft-reset` are a guest's wish that somebody outside saves it and
 * goes on, or begins anew what Xen gives it: here it stands as it was.
 */
export type ShutdownReason =
  | "poweroff"
  | "reset"
  | "exit"
  | "crash"
  | "hang"
  | "suspend"
  | "watchdog"
  | "soft-reset";

/** Guest-physical memory of a domain. */
export interface DomainMemory {
  /** Bytes. */
  readonly size: number;
  /** @throws {RangeError} naming the address that is no memory of the domain. */
  read(gpa: number, length: number): Uint8Array;
  write(gpa: number, bytes: Uint8Array): void;
  /** Machine address of a guest-physical one, -1 if there is no memory. */
  machineAddress(gpa: number): number;
  /** Registers what is state besides the contents. */
  register?(blocks: StateRegister): void;
  /** Gives it back, when the domain is no more. */
  release?(): void;
}

/** What a domain and its vCPUs are given of their host. */
export interface DomainHost {
  readonly machine: Machine;
  readonly world: World;
  readonly blocks: StateRegistry;
  readonly scheduler: Pick<Scheduler, "allot" | "join" | "settle" | "burn" | "yield">;
  readonly processors: readonly Processor[];
  /** What each domain has that others share with it, by its id. */
  readonly peers: Map<number, Peer>;
  /** The hypervisor's own console. */
  readonly log: ConsoleLog;
  /** A domain of that id is there; domain 0 is. */
  has(domain: number): boolean;
  /** The processor that runs waits for a device: time (ns) passes there without instructions. */
  stall(nanoseconds: number): void;
  /** Who can run has changed: the processor that runs looks at the others next. */
  endLeg(): void;
  /** Something has come for a vCPU. */
  kick(vcpu: Vcpu): void;
  /** There may be something to run. */
  wake(): void;
  /** Somebody outside was told something: he has his turn as soon as the instruction is done. */
  yield(): void;
  /** A domain is no more: it is taken off the list. */
  leave(domain: Domain): void;
}

/** What a domain is made from. */
interface DomainOptions {
  readonly id: number;
  readonly name: string;
  readonly type: "bare" | "hvm";
  readonly memory: DomainMemory;
  /** How many. */
  readonly vcpus: number;
  /** See {@linkcode Allotment}. */
  readonly weight?: number;
  readonly cap?: number;
  /** Its own if not given; a bare guest's is the machine's. */
  readonly clock?: ClockName;
  /** Bytes of console output that are kept. */
  readonly consoleMemory?: number;
}

/** Bytes of console output that are kept, if nobody says otherwise. */
const CONSOLE_MEMORY: number = 4 << 20;
const BLOCKED: DomainState = { kind: "blocked" };
/** At least so many POST codes are kept. */
const POSTS = 1000;

interface SavedDomain {
  readonly posts: readonly number[];
  readonly allotment: Allotment;
  readonly cpuid: readonly (readonly number[])[];
}
const SAVED = record({
  posts: list(amount),
  allotment: ALLOTMENT_SHAPE,
  cpuid: list(tuple(amount, u32, u32, u32, u32)),
});

/** Where a domain that does not run stands. */
interface SavedPlace {
  /** All its vCPUs wait, and it is not paused. */
  readonly blocked: boolean;
  /** Its clock goes: `clock` is its own time less machine time; else its own time (ns). */
  readonly goes: boolean;
  readonly clock: number;
  /** It is on the host's time. */
  readonly host: boolean;
}
const PLACE = record({
  blocked: flag,
  goes: flag,
  clock: whole(-(2 ** 52), 2 ** 52),
  host: flag,
});

export class Domain {
  /** Where its state is registered, and what else comes and goes with it. */
  readonly blocks: StateRegister;
  readonly id: number;
  readonly name: string;
  readonly type: "bare" | "hvm";
  readonly memory: DomainMemory;
  readonly vcpus: readonly Vcpu[];
  /** Its share of the host. */
  readonly allotment: Allotment;
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
  /** Its own time (ns) while its clock stands; less machine time while it goes. */
  #clock = 0;
  #goes: boolean;
  #onHostTime: boolean;
  /** The last POST codes. */
  posts: number[] = [];
  #ending: GuestEnd | undefined;
  #only: Vcpu | undefined;

  constructor(readonly host: DomainHost, options: DomainOptions) {
    const { id, name, type, memory, vcpus, weight, cap, clock, consoleMemory } = options;
    this.id = id;
    this.name = name;
    this.type = type;
    this.memory = memory;
    this.blocks = host.blocks.part(this.#part);
    this.output = new ByteLog(consoleMemory ?? CONSOLE_MEMORY);
    this.allotment = host.scheduler.allot(vcpus, weight, cap);
    const { processors } = host;
    this.vcpus = Array.from(
      { length: vcpus },
      (_, n) => new Vcpu(this, n, processors[n % processors.length]),
    );
    // The machine's time is a bare guest's own.
    this.#goes = this.#onHostTime = type === "bare" || clock === "host";
  }

  get #part(): string {
    return `domain ${this.id}`;
  }

  /** Its motherboard; a guest that asks the hypervisor for everything needs none. */
  platform: Platform | undefined;
  /** Its console's ring, if somebody serves it. */
  ring: { input(bytes: Uint8Array): void } | undefined;
  /** What it has of Xen's interface, if it knows on whom it runs. */
  xen: XenInterface | undefined;
  /** What CPUID tells the guest. */
  cpuid!: Cpuid;

  /** Instructions its vCPUs have retired; exact inside a device access too. */
  get count(): number {
    return this.vcpus.reduce((sum, { count }) => sum + count, 0);
  }
  /** Exits of its vCPUs by kind. */
  get exits(): Record<string, number> {
    const sum: Record<string, number> = {};
    for (const { exits } of this.vcpus) {
      for (const [kind, count] of Object.entries(exits)) sum[kind] = (sum[kind] ?? 0) + count;
    }
    return sum;
  }

  // --- its clock ---

  /**
   * Its own time (ns). On its own clock, with one vCPU, it passes while that runs or waits, and stands
   * while the domain is paused or another has the processor: so a guest sees the same times whoever runs
   * beside it. With several it is the host's while the domain is not paused: waiting for a processor is
   * steal. On the host's clock it always passes, as everybody's: waiting for a processor, and a pause in
   * which others run, is steal.
   */
  get now(): number {
    if (!this.#goes) return this.#clock;
    const now = this.#machineTime + this.#clock;
    // One vCPU that waits is woken by its next deadline: no time passes for it after that.
    return this.hasOwnTime && this.runs && this.vcpus[0].blocked
      ? Math.min(now, this.deadline)
      : now;
  }
  /** Whose time it has. */
  get clock(): ClockName {
    return this.#onHostTime ? "host" : "own";
  }
  /**
   * From now on it is on the host's time, and stays so: it is bound to another domain, which waits for it
   * while it waits. Its time goes on from where it is.
   */
  keepHostTime(): void {
    if (this.#onHostTime) return;
    this.#clock = this.now - this.#machineTime;
    this.#goes = this.#onHostTime = true;
    for (const vcpu of this.vcpus) vcpu.clockChanged();
  }
  /** That of its processors which is ahead: devices never see it go back. */
  get #machineTime(): number {
    let time = 0;
    for (const { cpu } of this.vcpus) time = Math.max(time, cpu.now);
    return time;
  }
  /** Own time less machine time, while the clock goes. */
  get timeOffset(): number {
    return this.#goes ? this.#clock : this.#clock - this.#machineTime;
  }
  /** Its time stands while others have the processor. */
  get hasOwnTime(): boolean {
    return !this.#onHostTime && this.vcpus.length === 1;
  }
  /** Its vCPU runs, or waits for an interrupt. */
  startClock(): void {
    if (this.hasOwnTime) this.#setClock(true);
  }
  /** It does neither: the clock stands at a given own time, or where it is. */
  stopClock(at?: number): void {
    if (!this.hasOwnTime) return;
    this.#clock = at ?? this.now;
    this.#goes = false;
  }
  /** It goes on, or stands, where it is. */
  #setClock(goes: boolean): void {
    if (goes === this.#goes) return;
    this.#clock = goes ? this.#clock - this.#machineTime : this.now;
    this.#goes = goes;
  }
  /** Its own time (ns) at which its motherboard, or a timer of Xen's, has something to do; Infinity: never. */
  get deadline(): number {
    return Math.min(this.platform?.deadline() ?? Infinity, this.xen?.deadline ?? Infinity);
  }
  /** What its devices have to do by now is done; the clock of one that waited stands there. */
  runDue(): void {
    const due = this.deadline;
    if (due > this.now) return;
    this.stopClock(due);
    this.run(due);
  }
  /** Does what is due by its own time `now` (ns). */
  run(now: number): void {
    this.platform?.run(now);
    this.xen?.run(now);
  }

  /** Share of the processor beside others, 1 to 65535; 256 is everybody's. */
  get weight(): number {
    return this.allotment.weight;
  }
  set weight(weight: number) {
    checkWeight(weight);
    this.host.world.enter("weight", this.id, weight);
    for (const vcpu of this.vcpus) this.host.scheduler.settle(vcpu);
    this.allotment.weight = weight;
  }
  /** Most that its vCPUs get together, in percent of one processor; 0: no cap. */
  get cap(): number {
    return this.allotment.cap;
  }
  set cap(cap: number) {
    checkCap(cap, this.vcpus.length);
    this.host.world.enter("cap", this.id, cap);
    for (const { processor } of this.vcpus) processor.turn = null;
    this.allotment.cap = cap;
  }

  /** Registers the state of all that is the domain's. */
  register(): void {
    const { blocks } = this;
    blocks.register<SavedDomain>({
      name: "",
      version: 2,
      configuration: () => ({
        name: this.name,
        type: this.type,
        memory: this.memory.size,
        vcpus: this.vcpus.length,
        cpuid: this.cpuid.model,
        ended: this.#state.kind === "shutdown" ? this.describe() : "no",
      }),
      shape: SAVED,
      save: () => ({
        posts: [...this.posts],
        allotment: { ...this.allotment },
        cpuid: this.cpuid.save(),
      }),
      check: ({ cpuid }) => {
        const problem = this.cpuid.problem(cpuid);
        if (problem) refuse(`domain ${this.id}: its CPUID table is refused: ${problem}`);
      },
      load: (s) => {
        this.posts = [...s.posts];
        Object.assign(this.allotment, s.allotment);
        this.cpuid.load(s.cpuid);
      },
    });
    this.memory.register?.(blocks);
    for (const vcpu of this.vcpus) vcpu.register(this.host.blocks, `${this.#part} vcpu ${vcpu.id}`);
    this.platform?.register(blocks);
    this.xen?.register(blocks);
    // Last, because there are those that are told of it.
    blocks.register<SavedPlace>({
      name: "place",
      version: 3,
      shape: PLACE,
      save: () => ({
        blocked: this.runs && this.vcpus.every((vcpu) => vcpu.blocked || !vcpu.online),
        goes: this.#goes,
        clock: this.#clock,
        host: this.#onHostTime,
      }),
      check: ({ blocked }, beside) => {
        if (!blocked) return;
        for (const { id } of this.vcpus) {
          const { state } = (beside(`vcpu ${id}`) as unknown as SavedVcpu).runstate;
          if (state === "blocked" || state === "offline") continue;
          refuse(
            `${this.#part} place: blocked is true, and the state of its vCPU ${id} is ${state}`,
          );
        }
      },
      load: (s) => {
        this.#goes = s.goes;
        this.#clock = s.clock;
        this.#onHostTime = s.host;
        for (const vcpu of this.xen?.vcpus ?? []) vcpu.runstate.loaded();
        // Who let one run alone is told that this is over.
        this.#only = undefined;
        const kind = s.blocked ? "running" : "paused";
        if (!this.ended && this.#state.kind !== kind) this.setState({ kind });
        else this.#settle();
      },
    });
  }

  get state(): DomainState {
    return this.runs && this.#waits ? BLOCKED : this.#state;
  }
  /** It is neither paused nor at an end: its vCPUs run, or wait. */
  get runs(): boolean {
    return this.#state.kind === "running";
  }
  /** All its vCPUs that are online, and do not stand, wait. */
  get #waits(): boolean {
    return this.vcpus.every((vcpu) => vcpu.blocked || !vcpu.online || !this.#lets(vcpu));
  }
  #lets(vcpu: Vcpu): boolean {
    return this.#only === undefined || this.#only === vcpu;
  }
  /** The only one of its vCPUs that runs, while the others stand: for whoever steps it, so it is not saved. */
  get only(): Vcpu | undefined {
    return this.#only;
  }
  /** Somebody from outside lets one vCPU run alone; all again with undefined. */
  runOnly(vcpu: Vcpu | undefined): void {
    if (this.#only === vcpu) return;
    this.host.world.enter("only", this.id, vcpu?.id ?? null);
    this.#only = vcpu;
    this.#settle();
    // Turns under way were as long as those wait who could have had them.
    for (const { processor } of this.vcpus) processor.turn = null;
    this.host.endLeg();
  }
  setState(state: Exclude<DomainState, { kind: "blocked" }>): void {
    if (this.#state.kind === "destroyed") return;
    this.#state = state;
    this.#settle();
    this.#tell();
  }
  /** Its vCPUs go on, or stand, and the clock that they share with them; one that runs has to leave first. */
  #settle(): void {
    for (const vcpu of this.vcpus) {
      if (vcpu.goes) vcpu.goOn();
      else if (!vcpu.running) vcpu.stand();
    }
    const shared = this.vcpus.length > 1 && !this.#onHostTime;
    if (shared) this.#setClock(this.runs || this.vcpus.some(({ running }) => running));
  }
  /** One of its vCPUs has left its processor. */
  left(): void {
    this.stopClock();
    if (!this.runs) this.#settle();
  }
  /** Does something in the place of one of its vCPUs while it stands: the time that takes is its turn's. */
  inPlaceOf(vcpu: Vcpu, act: () => void): void {
    const { processor } = vcpu, { now } = processor;
    this.#setClock(true);
    processor.inPlaceOf(vcpu, act);
    this.host.scheduler.burn(vcpu, processor.now - now, processor.turn);
    this.left();
  }
  #tell(): void {
    const { state } = this;
    for (const listener of [...this.onState]) listener(state);
  }
  /** What one of its vCPUs waited for is there. */
  wake(vcpu: Vcpu): void {
    const waited = this.#waits;
    vcpu.wake();
    if (waited) this.#tell();
  }
  get ended(): boolean {
    return this.#state.kind === "shutdown" || this.#state.kind === "destroyed";
  }

  /** A device says that the guest ends itself; it takes effect when the instruction is done. */
  end(reason: ShutdownReason, detail: string): void {
    const vcpu = this.vcpus.find(({ running }) => running)?.id ?? 0;
    this.#ending ??= { reason, detail, vcpu };
    this.#stopVcpus();
  }
  get ending(): GuestEnd | undefined {
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
    // One that waits for a device outside goes on with the access.
    for (const vcpu of this.vcpus) if (vcpu.blocked && !vcpu.halted) vcpu.wake();
    this.setState({ kind: "running" });
    if (this.#waits) this.startClock();
  }
  pause(): void {
    if (this.ended || this.#state.kind === "paused") return;
    if (this.vcpus.some(({ running }) => running)) this.#stopVcpus();
    else this.stopClock();
    this.setState({ kind: "paused" });
  }
  /** Those that run leave their processors when the instruction is done. */
  #stopVcpus(): void {
    for (const { processor } of this.vcpus) processor.cpu.stop();
  }

  /** Ends it and gives back all it holds, at whatever moment. */
  destroy(): void {
    const { host, vcpus } = this;
    if (this.#state.kind === "destroyed") return;
    this.#stopVcpus();
    this.setState({ kind: "destroyed", count: host.machine.count });
    host.leave(this);
    this.xen?.destroy();
    host.blocks.drop(this.#part);
    let left = vcpus.length;
    for (const vcpu of vcpus) {
      const { processor } = vcpu;
      if (processor.turn?.vcpu === vcpu) processor.turn = null;
      // Who runs it has to come back first: a device of its, or an observer, may have asked for it.
      processor.whenOff(vcpu, () => {
        vcpu.engine.destroy();
        if (--left === 0) this.memory.release?.();
      });
    }
  }

  /** Console input from outside. */
  input(bytes: Uint8Array): void {
    this.host.world.enter("input", this.id, bytes);
    if (this.ring && this.xen?.ringSpoke) this.ring.input(bytes);
    else this.platform?.input(bytes);
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

  /** The guest writes a byte to its console: what is typed goes to where it wrote last. */
  emit(byte: number, by: "port" | "ring" = "port"): void {
    if (this.xen) this.xen.ringSpoke = by === "ring";
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
