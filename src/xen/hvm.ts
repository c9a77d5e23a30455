/** A guest in a hardware virtual machine: entries, exits, interrupts, and what its exits want. */
import type { Exit } from "../hvm/exit.ts";
import type { EnterOptions, HvmCpu, HvmOps, HvmVcpu, Intercepts } from "../hvm/ops.ts";
import { CPUID_APIC, CPUID_OSXSAVE } from "../abi/x86/cpuid.ts";
import { CR4 } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import type { CpuHooks } from "../machine/cpu.ts";
import { SERVICE } from "../machine/system.ts";
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
  /** Made once: entries are hot. */
  readonly #entry: { budget: number; pageFault?: EnterOptions["pageFault"] } = { budget: 0 };
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
    cpuid.onChange.add(() => this.cpuidChanged());
  }

  /** Exits that the hypervisor wants whatever an observer asks for. */
  get needs(): Intercepts {
    // The task priority is the local APIC's; bits of CR4 that CPUID does not show do not exist.
    return {
      crRead: 1 << 8,
      crWrite: 1 << 8,
      cr4Bits: ~this.cpuid.cr4Valid,
      exceptions: this.foreign ? 1 << UD : 0,
    };
  }
  /** CPUID shows the other vendor: some instructions that software then expects are not there. */
  get foreign(): boolean {
    const { vendor } = this.cpuid;
    return vendor !== undefined && vendor !== this.on.cpu.model;
  }
  /** Asks for exits, those above included. */
  setIntercepts(wanted: Intercepts): void {
    const { needs } = this;
    const both = { ...needs, ...wanted } as Record<string, unknown>;
    for (const [name, bits] of Object.entries(needs)) {
      if (typeof bits === "number") both[name] = bits | ((wanted as Bits)[name] ?? 0);
    }
    this.ops.setIntercepts(this.vcpu, both);
  }

  run(budget: number): SliceEnd {
    const { cpu } = this.on;
    const end = cpu.count + budget;
    let fruitless = 0, last = cpu.count;
    // Others have run since: their time is not this guest's.
    if (this.domain.timeOffset !== this.#timeOffset) this.setTsc();
    const { shadow } = this;
    this.#entry.pageFault = shadow?.pageFault;
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
      this.#entry.budget = end - cpu.count;
      const raw = this.ops.enter(this.vcpu, this.#entry);
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

  /** CPUID of this domain, looked up once per leaf; what follows the processor's state is put in. */
  cpuidLeaf(leaf: number, subleaf: number): CpuidResult {
    const key = (leaf >>> 0) * 256 + (subleaf & 255);
    let result = this.#cpuid.get(key);
    if (!result) {
      if (this.#cpuid.size > 256) this.#cpuid.clear();
      this.#cpuid.set(key, result = this.cpuid.read(leaf, subleaf));
    }
    if (leaf !== 1 && leaf >>> 0 !== 0x8000_0001) return result;
    let { ecx, edx } = result;
    const on = this.domain.platform.readMsr(MSR.APIC_BASE) ?? 0n;
    if (!(on & 0x800n)) edx = (edx & ~CPUID_APIC) >>> 0;
    if (leaf !== 1) return { ...result, edx };
    if (this.ops.getCr(this.vcpu, 4) & BigInt(CR4.OSXSAVE)) ecx = (ecx | CPUID_OSXSAVE) >>> 0;
    return { ...result, ecx, edx };
  }
  /** The domain's CPUID was edited. */
  cpuidChanged(): void {
    this.#cpuid.clear();
    if (this.domain.state.kind !== "destroyed") {
      const { cr4Bits, exceptions } = this.needs;
      this.ops.setIntercepts(this.vcpu, { cr4Bits, exceptions });
    }
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
  /** Drops what is derived from the guest and kept in memory: before all of memory is looked at or changed. */
  quiesce(): void {
    if (!this.shadow) return;
    this.shadow.drop();
    this.ops.unload(this.on);
  }

  /** What the emulated instructions of this domain reach. */
  readonly #hooks: Pick<
    CpuHooks,
    "emulatedRead" | "emulatedWrite" | "emulatedIoRead" | "emulatedIoWrite" | "service"
  > = {
    emulatedRead: (address, bytes) => this.servers.read("copy", address, bytes),
    emulatedWrite: (address, bytes, value) => this.servers.write("copy", address, bytes, value),
    emulatedIoRead: (port, bytes) => this.servers.read("pio", port, bytes),
    emulatedIoWrite: (port, bytes, value) => this.servers.write("pio", port, bytes, value),
    service: (number) =>
      number === SERVICE.random ? this.domain.host.world.randomFor(this.domain) : 0,
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
    this.shadow?.destroy();
    ops.destroyVcpu(this.vcpu, {
      allocate: () => frames.allocate(domain.id) * 4096,
      free: (address) => frames.release(address / 4096),
    });
    frames.releaseAll(domain.id);
  }
}

const UD = 6;
type Bits = Readonly<Record<string, number | undefined>>;

const BUDGET: SliceEnd = { kind: "budget" };
/** Exits in a row with no instruction between them, after which time passes: 1 ns each. */
const LIVELOCK = 10_000;
