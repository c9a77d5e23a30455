/** A guest in a hardware virtual machine: entries, exits, interrupts, and what its exits want. */
import type { Exit } from "../hvm/exit.ts";
import type { HvmCpu, HvmOps, HvmVcpu } from "../hvm/ops.ts";
import type { Cpuid, CpuidResult } from "../machine/cpuid.ts";
import type { Domain, Engine, SliceEnd } from "./domain.ts";
import { handleExit } from "./exits.ts";
import type { HostInterrupts } from "./irq.ts";
import { IoreqServers } from "./ioreq.ts";
import type { P2M } from "./p2m.ts";
import type { Shadow } from "./shadow.ts";

/** What an observer wants of an exit, before it is handled. */
export type Observed =
  /** Nothing: the exit is handled as always. */
  | undefined
  /** The observer has answered it; the guest goes on. */
  | "answered"
  /** The domain stands still with the exit unhandled; it is handled when the domain goes on. */
  | { readonly stop: unknown };

/** Debuggers look in here. Absent, nothing is paid. */
export interface ExitObserver {
  exit(exit: Exit): Observed;
}

export class HvmEngine implements Engine {
  readonly servers: IoreqServers;
  observer: ExitObserver | undefined;
  /** An exit whose handling waits: for a debugger, or for a device that answers later. */
  pending: Exit | undefined;
  /** The last exit, for `why()`. */
  last: Exit | undefined;
  readonly #cpuid = new Map<number, CpuidResult>();
  /** MSRs that are the hypervisor's to remember. */
  readonly msrs: Map<number, bigint> = new Map();
  /** Interrupt requests or deadlines may have changed since the last entry. */
  changed = true;
  /** Shadow paging, in place of nested. */
  shadow: Shadow | undefined;
  #window = false;
  #nmi = false;

  constructor(
    readonly domain: Domain,
    readonly ops: HvmOps,
    readonly on: HvmCpu,
    readonly vcpu: HvmVcpu,
    readonly p2m: P2M,
    readonly interrupts: HostInterrupts,
    readonly cpuid: Cpuid,
  ) {
    this.servers = new IoreqServers(() => domain.platform, () => {
      this.changed = true;
      domain.host.wake();
    });
  }

  run(budget: number): SliceEnd {
    const { cpu } = this.on;
    const end = cpu.count + budget;
    let fruitless = 0, last = cpu.count;
    const { shadow } = this;
    if (this.pending) {
      const exit = this.pending;
      this.pending = undefined;
      const stop = this.#handle(exit);
      if (stop) return stop;
    }
    while (cpu.count < end) {
      if (this.domain.ending || this.domain.state.kind !== "running") return BUDGET;
      if (this.changed) this.#beforeEntry();
      shadow?.sync();
      const raw = this.ops.enter(this.vcpu, {
        budget: end - cpu.count,
        pageFault: shadow?.pageFault,
      });
      const exit = shadow ? shadow.refine(raw) : raw;
      if (!exit) {
        cpu.idle += LIVELOCK;
        return BUDGET;
      }
      if (exit.kind === "stopped" && exit.why !== "breakpoint" && exit.why !== "watch") {
        // A shadowed guest has left real mode.
        if (exit.why === "budget" && cpu.count < end && shadow) continue;
        if (exit.why === "budget" || exit.why === "stopped") return BUDGET;
        throw new Error(`the processor stopped in a guest: ${exit.why}`);
      }
      this.last = exit;
      const { exits } = this.domain;
      exits[exit.kind] = (exits[exit.kind] ?? 0) + 1;
      if (this.observer) {
        const observed = this.observer.exit(exit);
        if (observed === "answered") continue;
        if (observed) {
          this.pending = exit;
          return { kind: "stop", stop: observed.stop };
        }
      }
      const stop = this.#handle(exit);
      if (stop) return stop;
      if (cpu.count !== last) {
        last = cpu.count;
        fruitless = 0;
      } else if (++fruitless >= LIVELOCK) {
        cpu.idle += LIVELOCK;
        return BUDGET;
      }
    }
    return BUDGET;
  }

  #handle(exit: Exit): SliceEnd | undefined {
    const end = handleExit(this, exit);
    if (end === "again") {
      this.pending = exit;
      return { kind: "blocked" };
    }
    return end;
  }

  /** Timers and interrupts of the guest, as they stand now. */
  #beforeEntry(): void {
    this.changed = false;
    const { platform } = this.domain;
    const { cpu } = this.on;
    if (platform.deadline() <= cpu.now) platform.run(cpu.now);
    this.interrupts.setTimer(platform.deadline());
    if (this.#nmi) this.#injectNmi();
    if (!platform.interruptPending()) {
      if (this.#window) this.#setWindow(false);
      return;
    }
    if (!this.ops.canInterrupt(this.vcpu)) {
      if (!this.#window) this.#setWindow(true);
      return;
    }
    const vector = platform.acknowledge();
    if (vector >= 0) this.ops.inject(this.vcpu, { type: "external-interrupt", vector });
    // Another may wait behind it.
    if (platform.interruptPending()) this.#setWindow(true);
    else if (this.#window) this.#setWindow(false);
  }

  /** The guest's NMI line is asserted; it is injected as soon as no other NMI is being handled. */
  nmi(): void {
    this.#nmi = true;
    this.changed = true;
  }

  #injectNmi(): void {
    const { sti, movSs, nmi } = this.ops.interruptShadow(this.vcpu);
    const can = !sti && !movSs && !nmi && !this.ops.pendingEvent(this.vcpu);
    if (can) {
      this.ops.inject(this.vcpu, { type: "nmi", vector: 2 });
      this.#nmi = false;
    }
    this.ops.setNmiWindow(this.vcpu, !can);
  }

  #setWindow(on: boolean): void {
    this.#window = on;
    this.ops.setInterruptWindow(this.vcpu, on);
  }

  /** CPUID of this domain, looked up once per leaf. */
  cpuidLeaf(leaf: number, subleaf: number): CpuidResult {
    const key = (leaf >>> 0) * 64 + (subleaf & 63);
    let result = this.#cpuid.get(key);
    if (!result) {
      result = this.cpuid.read(leaf, subleaf, {
        osxsave: false,
        apicEnabled: true,
        apicId: 0,
        xcr0: 1,
      });
      this.#cpuid.set(key, result);
    }
    return result;
  }

  /** The host's timer rang. */
  timer(): void {
    this.changed = true;
  }

  get waiting(): boolean {
    return this.pending !== undefined && this.servers.waiting;
  }
  runnable(): boolean {
    if (this.pending) return !this.servers.waiting;
    const { platform } = this.domain;
    return this.#nmi || platform.interruptPending() || platform.deadline() <= this.on.cpu.now;
  }
  load(): void {
    this.ops.load(this.vcpu);
    const { hooks } = this.on.cpu;
    hooks.emulatedRead = (address, bytes) => this.#emulated("copy", address, bytes);
    hooks.emulatedWrite = (address, bytes, value) =>
      this.#emulatedWrite("copy", address, bytes, value);
    hooks.emulatedIoRead = (port, bytes) => this.#emulated("pio", port, bytes);
    hooks.emulatedIoWrite = (port, bytes, value) => this.#emulatedWrite("pio", port, bytes, value);
    this.changed = true;
  }
  unload(): void {
    this.ops.unload(this.on);
  }
  /** Drops what is derived from the guest and kept in memory: before all of memory is looked at or changed. */
  quiesce(): void {
    if (!this.shadow) return;
    this.shadow.drop();
    this.ops.unload(this.on);
  }

  /** Answers of this instruction so far, for servers that answer later. */
  #emulated(type: "pio" | "copy", address: number, bytes: number): number | undefined {
    return this.servers.read(type, address, bytes);
  }
  #emulatedWrite(type: "pio" | "copy", address: number, bytes: number, value: number): boolean {
    return this.servers.write(type, address, bytes, value);
  }

  destroy(): void {
    const { domain, ops, p2m } = this;
    const { frames } = p2m;
    domain.host.switchTo(undefined);
    this.shadow?.destroy();
    ops.destroyVcpu(this.vcpu, {
      allocate: () => frames.allocate(domain.id) * 4096,
      free: (address) => frames.release(address / 4096),
    });
    frames.releaseAll(domain.id);
  }
}

const BUDGET: SliceEnd = { kind: "budget" };
/** Exits in a row with no instruction between them, after which time passes: 1 ns each. */
const LIVELOCK = 10_000;
