/** A guest in a hardware virtual machine: entries, exits, interrupts, and what its exits want. */
import type { Exit } from "../hvm/exit.ts";
import type { HvmCpu, HvmOps, HvmVcpu } from "../hvm/ops.ts";
import { MSR } from "../abi/x86/msr.ts";
import type { CpuHooks } from "../machine/cpu.ts";
import type { Cpuid, CpuidResult } from "../machine/cpuid.ts";
import type { Domain, Engine, SliceEnd } from "./domain.ts";
import { handleExit } from "./exits.ts";
import type { HostInterrupts } from "./irq.ts";
import { IoreqServers } from "./ioreq.ts";
import type { P2M } from "./p2m.ts";

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
  #window = false;
  #nmi = false;
  /** What the hardware's time-stamp offset was made from; NaN: to be made anew. */
  #timeOffset = NaN;

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
    // Others have run since: their time is not this guest's.
    if (this.domain.timeOffset !== this.#timeOffset) this.setTsc();
    if (this.pending) {
      const exit = this.pending;
      this.pending = undefined;
      const stop = this.#handle(exit);
      if (stop) return stop;
    }
    while (cpu.count < end) {
      if (this.domain.ending || this.domain.state.kind !== "running") return BUDGET;
      if (this.changed) this.#beforeEntry();
      const exit = this.ops.enter(this.vcpu, { budget: end - cpu.count });
      if (exit.kind === "stopped" && exit.why !== "breakpoint" && exit.why !== "watch") {
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
    const { domain } = this, { platform } = domain;
    if (platform.deadline() <= domain.now) platform.run(domain.now);
    this.interrupts.setTimer(platform.deadline() - domain.timeOffset);
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
    return this.#nmi || this.domain.platform.interruptPending();
  }
  load(): void {
    this.ops.load(this.vcpu);
    Object.assign(this.on.cpu.hooks, this.#hooks);
    this.#timeOffset = NaN;
    this.changed = true;
  }
  unload(): void {
    this.ops.unload(this.on);
  }

  /** What the emulated instructions of this domain reach. */
  readonly #hooks: Pick<
    CpuHooks,
    "emulatedRead" | "emulatedWrite" | "emulatedIoRead" | "emulatedIoWrite"
  > = {
    emulatedRead: (address, bytes) => this.servers.read("copy", address, bytes),
    emulatedWrite: (address, bytes, value) => this.servers.write("copy", address, bytes, value),
    emulatedIoRead: (port, bytes) => this.servers.read("pio", port, bytes),
    emulatedIoWrite: (port, bytes, value) => this.servers.write("pio", port, bytes, value),
  };

  /** The guest's time-stamp counter counts its own time, from where it set it. */
  setTsc(): void {
    this.#timeOffset = this.domain.timeOffset;
    const offset = BigInt(this.#timeOffset) + (this.msrs.get(MSR.TSC_ADJUST) ?? 0n);
    this.ops.setTscOffset(this.vcpu, BigInt.asUintN(64, offset));
  }

  destroy(): void {
    const { domain, ops, p2m } = this;
    const { frames } = p2m;
    this.pending = this.last = undefined;
    domain.host.switchTo(undefined);
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
