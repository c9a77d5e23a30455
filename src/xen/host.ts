/**
 * The host: one simulated computer, the domains on it, the scheduler, and the loop that drives it.
 * Time is the machine's; the only clock from outside is `world.pace`, for guests with a person in
 * front of them.
 */
import { Machine } from "../machine/machine.ts";
import { hypervisorsProcessor } from "../machine/cpu_state.ts";
import { record } from "../machine/shape.ts";
import { StateRegistry } from "../machine/state_block.ts";
import type { HvmCpu, HvmOps } from "../hvm/ops.ts";
import type { Domain } from "./domain.ts";
import type { Frames } from "./frames.ts";
import type { HostInterrupts } from "./irq.ts";
import { Scheduler } from "./scheduler.ts";
import { World } from "./world.ts";
import { type Attention, attention } from "./world_attention.ts";
import type { CpuModel } from "../machine/vendors.ts";

export interface HostOptions {
  readonly cpu: CpuModel;
  /** Bytes of machine memory. */
  readonly memory: number;
  /** Seconds since 1970 at machine time 0. */
  readonly unixTime: number;
  readonly seed: number;
}

export class Host {
  readonly machine: Machine;
  /** The state of all that is on the host. */
  readonly blocks: StateRegistry = new StateRegistry();
  readonly world: World;
  readonly domains: Domain[] = [];
  readonly scheduler: Scheduler;
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
  #running: Domain | undefined;
  /** Instructions of the machine when `#running` got the processor. */
  #ranFrom = 0;
  /** Done as soon as the domain that runs has left the processor. */
  whenOff: (() => void) | undefined;
  #nextId = 1;
  /** An error of ours that ended the driver. */
  readonly onError: Set<(error: unknown) => void> = new Set();
  /** Asked between slices; true stops all domains (ctrl-C). */
  interrupted: () => boolean = () => false;
  readonly onInterrupt: Set<() => void> = new Set();

  /** Says when a slice is over; a test may have one of its own. */
  attention: Pick<Attention, "due" | "begin" | "end"> = attention;
  #yields = false;
  /** Machine time when the slice began. */
  #sliceFrom = -1;

  constructor(readonly options: HostOptions) {
    this.machine = new Machine({ memory: options.memory, cpu: options.cpu });
    const { cpu } = this.machine;
    // Every slice gets somewhere, however long its first instruction takes: where it is asked within an
    // instruction, that one is counted already, and may be given up.
    this.machine.due = () =>
      this.#yields || (this.attention.due() && cpu.now > this.#sliceFrom + 1);
    this.scheduler = new Scheduler(options.seed, () => cpu.now);
    this.world = new World(options.unixTime, options.seed, () => this.machine.cpu.count);
    this.#register();
  }

  #register(): void {
    const { blocks, options: { cpu, memory, unixTime, seed } } = this;
    blocks.register({
      name: "host",
      version: 1,
      configuration: () => {
        const domains = this.domains.map(({ id, name }) => `${id} "${name}"`).join(", ") || "none";
        return { cpu, memory, unixTime, seed, domains };
      },
      shape: record({}),
      save: () => ({}),
      load: () => {},
    });
    this.machine.register(blocks);
    this.world.register(blocks);
    this.scheduler.register(blocks, this.#known);
  }
  readonly #known = (id: number): boolean => this.domains.some((d) => d.id === id);
  /** The hypervisor is on the machine: what it has set up there is its own. */
  registerHypervisor(frames: Frames, interrupts: HostInterrupts): void {
    const { blocks, machine } = this;
    for (const cpu of machine.cpus) blocks.replace(hypervisorsProcessor(cpu));
    interrupts.register(blocks);
    frames.register(blocks, this.#known);
  }
  /** A domain that is complete is on the host. */
  join(domain: Domain): void {
    this.domains.push(domain);
    domain.register();
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
  /** Makes a domain's state one that can be looked at, in the middle of another's turn too. */
  look(domain: Domain): void {
    // The turn goes on with its own domain's hooks; the vCPU's own state comes and goes with each look.
    if (!this.#running) this.switchTo(domain);
  }
  get current(): Domain | undefined {
    return this.#current;
  }
  /** The domain whose turn it is just now; undefined between turns. */
  get running(): Domain | undefined {
    return this.#running;
  }
  /** Instructions it has retired in this turn. */
  get ranSoFar(): number {
    return this.machine.cpu.counted - this.#ranFrom;
  }

  /** A domain that waits has its time run up to now; true if that, or anybody, has woken it. */
  #awake(d: Domain): boolean {
    if (!d.engine.waiting) {
      const { platform } = d;
      const due = platform.deadline();
      if (due <= d.now) {
        d.stopClock(due);
        platform.run(due);
      }
    }
    if (this.#ends(d)) {
      this.yield();
      return false;
    }
    if (!d.engine.runnable()) {
      if (!d.engine.waiting) d.startClock();
      return false;
    }
    d.stopClock();
    d.setState({ kind: "running" });
    return true;
  }

  /** The domains that can run, as they stand in the list. */
  #runnable(): Domain[] {
    return this.domains.filter((d) =>
      d.state.kind === "running" || (d.state.kind === "blocked" && this.#awake(d))
    );
  }

  /**
   * Runs the domain whose turn it is, for at most `budget` instructions. Undefined if none can run.
   * A turn is as long in however many parts it runs.
   */
  runOnce(budget: number): Domain | undefined {
    if (this.#running) {
      throw new Error("the host runs a domain already: this call came from within");
    }
    const domain = this.#ofTurn() ?? this.#beginTurn();
    const { turn } = this.scheduler;
    if (domain && turn) this.#run(domain, Math.min(budget, turn.ends - this.machine.cpu.now));
    return domain;
  }

  /** The domain whose turn is under way, if it can go on with it. */
  #ofTurn(): Domain | undefined {
    const { turn } = this.scheduler;
    if (!turn || turn.ends <= this.machine.cpu.now) return undefined;
    // It had the host for itself.
    if (turn.ends === Infinity && this.domains.length > 1) return undefined;
    return this.domains.find((d) => d.id === turn.domain && d.state.kind === "running");
  }

  /** Chooses whose turn it is. Undefined if no domain can run; no turn if caps allow none. */
  #beginTurn(): Domain | undefined {
    const { scheduler, machine: { cpu } } = this;
    const able = this.#runnable();
    // A turn that stands still at a stop goes on, however long somebody thinks there.
    if (able.length === 0) return undefined;
    scheduler.turn = null;
    const within = able.filter((d) => scheduler.allowance(d.share) > 0);
    if (within.length === 0) {
      // All have used up what their caps allow: the processor idles to the next window.
      cpu.skipTo(scheduler.nextWindow);
      this.interrupts?.handlePending();
      return able[0];
    }
    if (this.domains.length === 1) {
      // Time that nobody else could have had is owed to nobody.
      able[0].share.owed = 0;
      return scheduler.begin(able[0], cpu.now + scheduler.allowance(able[0].share));
    }
    const domain = scheduler.choose(within, this.domains);
    const length = Math.min(
      scheduler.turnLength(within.length === 1),
      this.#untilWake(),
      scheduler.allowance(domain.share),
    );
    return scheduler.begin(domain, cpu.now + length);
  }

  /** Time (ns) until a domain that waits has to be looked at. */
  #untilWake(): number {
    return Math.max(1, this.#nextWake() - this.machine.cpu.now);
  }

  #run(domain: Domain, budget: number): void {
    const { cpu } = this.machine;
    this.switchTo(domain);
    domain.startClock();
    this.#yields = false;
    this.#running = domain;
    this.#ranFrom = cpu.count;
    const started = cpu.now;
    let end: ReturnType<Domain["engine"]["run"]>;
    try {
      end = domain.engine.run(budget);
    } finally {
      this.#running = undefined;
      domain.count += cpu.count - this.#ranFrom;
      this.scheduler.burn(domain.share, cpu.now - started);
      domain.stopClock();
      const { whenOff } = this;
      this.whenOff = undefined;
      whenOff?.();
      domain.flush();
      if (this.#woken && !this.#driving) queueMicrotask(() => this.wake());
    }
    this.#finish(domain, end);
    // A stop, a pause, an end: whoever waits for it acts here, and not wherever the slice would end.
    if (domain.state.kind !== "running" && domain.state.kind !== "blocked") this.yield();
  }

  #finish(domain: Domain, end: ReturnType<Domain["engine"]["run"]>): void {
    const waits = end.kind === "blocked" || (end.kind === "stop" && end.blocked);
    if (waits) domain.halt();
    const { engine, platform } = domain;
    const blocks = end.kind === "blocked" && domain.state.kind === "running";
    if (blocks && !domain.ending && !engine.waiting && platform.deadline() <= domain.now) {
      platform.run(domain.now);
    }
    if (this.#ends(domain)) {
      // What a device has said comes before what the processor did.
    } else if (blocks) {
      domain.setState({ kind: "blocked" });
      // While a device outside owes an answer, no time passes.
      if (!engine.waiting) domain.startClock();
    } else if (end.kind === "end") {
      domain.setState({ kind: "shutdown", reason: end.reason, detail: end.detail });
    } else if (end.kind === "stop" && !domain.ended) {
      domain.setState({ kind: "paused" });
    }
    if (domain.ended || waits) this.scheduler.turn = null;
  }

  /** A device has said that the guest ends; true if it now has. */
  #ends(domain: Domain): boolean {
    if (!domain.ending || domain.ended) return false;
    domain.setState({ kind: "shutdown", ...domain.ending });
    return true;
  }

  /** It waits with interrupts off, and nothing sends the NMI or INIT that alone would end that. */
  #isDeaf(d: Domain): boolean {
    return d.state.kind === "blocked" && !d.engine.waiting && !d.engine.interruptible &&
      !d.platform.ports[0].unmaskable && !d.engine.runnable();
  }
  /** A domain that can never go on ends here, whoever else still runs. */
  #endDeaf(): void {
    for (const d of this.domains) {
      if (this.#isDeaf(d)) this.#endHung(d, "halted with interrupts off");
    }
  }
  #endHung(d: Domain, detail: string): void {
    d.stopClock();
    d.setState({ kind: "shutdown", reason: "hang", detail });
  }

  /** Machine time at which the next domain that waits has something to do; Infinity: never. */
  #nextWake(): number {
    let earliest = Infinity;
    for (const d of this.domains) {
      if (d.state.kind !== "blocked" || d.engine.waiting) continue;
      earliest = Math.min(earliest, d.platform.deadline() - d.timeOffset);
    }
    return earliest;
  }

  /** Lets idle time pass up to the next deadline. False if nothing will ever happen. */
  idle(): boolean {
    const next = this.#nextWake();
    if (next === Infinity) return false;
    this.machine.cpu.skipTo(next);
    this.interrupts?.handlePending();
    return true;
  }

  get #blocked(): boolean {
    return this.domains.some((d) => d.state.kind === "blocked");
  }

  /**
   * Somebody outside was told something that guests did: the event loop has its turn as soon as the
   * instruction is done, so that what comes of it happens here, whatever the clock says.
   */
  yield(): void {
    this.#yields = true;
  }

  /** There may be something to run: starts the driver if it rests. */
  wake(): void {
    this.#wake?.();
    this.#woken = true;
    // From within a turn that somebody else drives: that one has to end first.
    if (this.#driving || this.#running) return;
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
    // Whoever woke it says all it has to say first: nothing runs within a call from outside.
    await undefined;
    for (;;) {
      this.#woken = false;
      if (this.interrupted()) {
        for (const d of this.domains) d.pause();
        for (const listener of [...this.onInterrupt]) listener();
        return;
      }
      this.attention.begin();
      this.#sliceFrom = this.machine.cpu.now;
      const end = this.#slice();
      this.attention.end();
      if (end === "rest") return;
      if (end === "due") await attention.turn();
      else await this.#pace();
    }
  }

  /** Runs domains until the host wants its thread, or until there is nothing to run. */
  #slice(): "due" | "pace" | "rest" {
    do {
      const ran = this.runOnce(Infinity);
      this.#endDeaf();
      if (ran) continue;
      if (!this.#blocked) return "rest";
      if (this.interactive) return "pace";
      if (!this.idle()) {
        this.#hang();
        return "rest";
      }
    } while (!this.machine.due());
    return "due";
  }

  /** Idle guests wait for the clock on the wall. */
  async #pace(): Promise<void> {
    const { cpu } = this.machine;
    const next = this.#nextWake(), before = cpu.now;
    const wait = next === Infinity ? 1e9 : next - before;
    await this.world.pace(wait, new Promise((resolve) => this.#wake = resolve));
    this.#wake = undefined;
    if (cpu.now === before && next !== Infinity && this.#blocked) this.idle();
  }

  /** Nothing inside will ever wake the domains that wait. */
  #hang(): void {
    // A device model outside has yet to answer; it wakes the driver.
    if (this.domains.some((d) => d.state.kind === "blocked" && d.engine.waiting)) return;
    for (const d of this.domains) {
      if (d.state.kind === "blocked") {
        this.#endHung(d, "halted with nothing left that could wake it");
      }
    }
  }
}
