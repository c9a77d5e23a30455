/**
 * The host: one simulated computer, the domains on it, the scheduler, and the loop that drives it.
 * Time is the machine's; the only clock from outside is `world.pace`, for guests with a person in
 * front of them.
 */
import { Machine } from "../machine/machine.ts";
import type { CpuModel } from "../machine/cpu.ts";
import type { HvmCpu, HvmOps } from "../hvm/ops.ts";
import type { Domain } from "./domain.ts";
import type { Frames } from "./frames.ts";
import type { HostInterrupts } from "./irq.ts";
import { World } from "./world.ts";

export interface HostOptions {
  readonly cpu: CpuModel;
  /** Bytes of machine memory. */
  readonly memory: number;
  /** Seconds since 1970 at machine time 0. */
  readonly unixTime: number;
  readonly seed: number;
}

/** Instructions between two looks at the prompt: 5 to 10 ms. */
const SLICE = 1_000_000;

export class Host {
  readonly machine: Machine;
  readonly world: World;
  readonly domains: Domain[] = [];
  /** The host's interrupt controllers, once a hypervisor is on it. */
  interrupts: HostInterrupts | undefined;
  frames: Frames | undefined;
  /** The virtualization hardware, switched on. */
  hvm: { readonly ops: HvmOps; readonly on: HvmCpu } | undefined;
  /** Idle guests are paced by the host's clock while somebody may type. */
  interactive = false;
  #driving = false;
  /** Somebody called `wake` since the driver last looked for work. */
  #woken = false;
  #wake: (() => void) | undefined;
  #current: Domain | undefined;
  #nextId = 1;
  /** An error of ours that ended the driver. */
  readonly onError: Set<(error: unknown) => void> = new Set();
  /** Asked between slices; true stops all domains (ctrl-C). */
  interrupted: () => boolean = () => false;
  readonly onInterrupt: Set<() => void> = new Set();

  constructor(readonly options: HostOptions) {
    this.machine = new Machine({ memory: options.memory, cpu: options.cpu });
    this.world = new World(options.unixTime, options.seed, () => this.machine.cpu.count);
  }

  newId(): number {
    return this.#nextId++;
  }
  domain(id: number): Domain {
    const found = this.domains.find((d) => d.id === id);
    if (!found) {
      const ids = this.domains.map((d) => d.id).join(", ") || "none";
      throw new RangeError(`there is no domain ${id}; there are: ${ids}`);
    }
    return found;
  }

  /** Puts a domain's vCPU on the processor. */
  switchTo(domain: Domain | undefined): void {
    if (this.#current === domain) return;
    this.#current?.engine.unload();
    this.#current = domain;
    domain?.engine.load();
  }
  get current(): Domain | undefined {
    return this.#current;
  }

  /** The domain whose turn it is: round robin among those that can run. */
  #next(): Domain | undefined {
    const { domains } = this;
    const start = this.#current ? domains.indexOf(this.#current) + 1 : 0;
    for (let i = 0; i < domains.length; i++) {
      const d = domains[(start + i) % domains.length];
      if (d.state.kind === "blocked" && d.engine.runnable()) d.setState({ kind: "running" });
      if (d.state.kind === "running") return d;
    }
  }

  /** Runs one domain for at most `budget` instructions. Undefined if none can run. */
  runOnce(budget: number): Domain | undefined {
    const domain = this.#next();
    if (!domain) return undefined;
    this.switchTo(domain);
    const before = this.machine.cpu.count;
    const end = domain.engine.run(budget);
    domain.count += this.machine.cpu.count - before;
    this.#finish(domain, end);
    return domain;
  }

  #finish(domain: Domain, end: ReturnType<Domain["engine"]["run"]>): void {
    if (domain.ending && !domain.ended) {
      domain.setState({ kind: "shutdown", ...domain.ending });
    } else if (end.kind === "blocked" && domain.state.kind === "running") {
      domain.setState({ kind: "blocked" });
    } else if (end.kind === "end") {
      domain.setState({ kind: "shutdown", reason: end.reason, detail: end.detail });
    } else if (end.kind === "stop" && !domain.ended) {
      domain.setState({ kind: "paused" });
    }
  }

  /** The earliest moment (ns) at which a blocked domain may have something to do. */
  #nextDeadline(): number {
    let earliest = this.machine.bus.deadline();
    for (const d of this.domains) {
      if (d.state.kind === "blocked") earliest = Math.min(earliest, d.platform.deadline());
    }
    return earliest;
  }

  /** Lets idle time pass up to the next deadline. False if nothing will ever happen. */
  #idle(): boolean {
    const next = this.#nextDeadline();
    if (next === Infinity) return false;
    this.machine.cpu.skipTo(next);
    this.interrupts?.handlePending();
    for (const d of this.domains) if (d.state.kind === "blocked") d.platform.run(next);
    return true;
  }

  get #blocked(): boolean {
    return this.domains.some((d) => d.state.kind === "blocked");
  }

  /** There may be something to run: starts the driver if it rests. */
  wake(): void {
    this.#wake?.();
    this.#woken = true;
    if (this.#driving) return;
    this.#driving = true;
    this.#drive().catch((error) => {
      for (const d of this.domains) {
        if (d.state.kind === "running" || d.state.kind === "blocked") {
          d.setState({ kind: "paused" });
        }
      }
      for (const listener of this.onError) listener(error);
      if (this.onError.size === 0) throw error;
    }).finally(() => {
      this.#driving = false;
      // Somebody woke the driver when it had just decided to rest.
      if (this.#woken) this.wake();
    });
  }

  /** One driver loop per host: slices, and between them the event loop gets its turn. */
  async #drive(): Promise<void> {
    for (;;) {
      this.#woken = false;
      if (this.interrupted()) {
        for (const d of this.domains) d.pause();
        for (const listener of [...this.onInterrupt]) listener();
        return;
      }
      if (this.runOnce(SLICE)) {
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      if (!this.#blocked) return;
      const next = this.#nextDeadline();
      if (this.interactive) {
        const wait = next === Infinity ? 1e9 : next - this.machine.cpu.now;
        const before = this.machine.cpu.now;
        await this.world.pace(wait, new Promise((resolve) => this.#wake = resolve));
        this.#wake = undefined;
        if (this.machine.cpu.now === before && next !== Infinity && this.#blocked) this.#idle();
        continue;
      }
      if (!this.#idle()) {
        // A device model outside has yet to answer; it wakes the driver.
        if (this.domains.some((d) => d.state.kind === "blocked" && d.engine.waiting)) return;
        for (const d of this.domains) {
          if (d.state.kind === "blocked") {
            d.setState({
              kind: "shutdown",
              reason: "hang",
              detail: "halted with nothing left that could wake it",
            });
          }
        }
        return;
      }
    }
  }
}
