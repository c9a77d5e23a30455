/**
 * The host: one simulated computer, its processors, the domains on it, the scheduler, and the loop that
 * drives it.
 * Time is the machine's; the only clock from outside is `world.pace`, for guests with a person in
 * front of them.
 */
import { Machine } from "../machine/machine.ts";
import { hypervisorsProcessor } from "../machine/cpu_state.ts";
import { record } from "../machine/shape.ts";
import { StateRegistry } from "../machine/state_block.ts";
import type { HvmOps } from "../hvm/ops.ts";
import type { Domain, DomainHost } from "./domain.ts";
import type { SliceEnd } from "./engine.ts";
import type { Frames } from "./frames.ts";
import { ConsoleLog } from "./console_log.ts";
import type { Peer } from "./interface.ts";
import { Legs } from "./legs.ts";
import { Processor } from "./processor.ts";
import { INTERLEAVE, type Interleave, Scheduler } from "./scheduler.ts";
import { type TurnBegin, type TurnEnd, TurnLog } from "./turns.ts";
import type { Vcpu } from "./vcpu.ts";
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
  /** Number of processors; 1 if not given. */
  readonly cpus?: number;
  /** How long vCPUs run in turn; {@linkcode INTERLEAVE} if not given. */
  readonly interleave?: Interleave;
}

function takeOut<T>(list: T[], one: T): void {
  const at = list.indexOf(one);
  if (at >= 0) list.splice(at, 1);
}

export class Host implements DomainHost {
  readonly machine: Machine;
  /** The state of all that is on the host. */
  readonly blocks: StateRegistry = new StateRegistry();
  readonly world: World;
  readonly processors: readonly Processor[];
  readonly #domains: Domain[] = [];
  readonly scheduler: Scheduler;
  frames: Frames | undefined;
  /** How to use the virtualization hardware, once a hypervisor is on it. */
  ops: HvmOps | undefined;
  /** Idle guests are paced by the host's clock while somebody may type. */
  interactive = false;
  #driving = false;
  /** Somebody called `wake` since the driver last looked for work. */
  #woken = false;
  #wake: (() => void) | undefined;
  #nextId = 1;
  /** An error of ours that ended the driver. */
  readonly onError: Set<(error: unknown) => void> = new Set();
  /** Asked between slices; true stops all domains (ctrl-C). */
  interrupted: () => boolean = () => false;
  readonly onInterrupt: Set<() => void> = new Set();

  /** Says when a slice is over; a test may have one of its own. */
  attention: Pick<Attention, "due" | "begin" | "end"> = attention;
  #yields = false;
  /** `#passed` when the slice began. */
  #sliceFrom = -1;
  /** Which processor runs how far. */
  readonly legs: Legs;
  /** The turns there were. */
  readonly turns: TurnLog = new TurnLog();
  /** Who runs, or ran last. */
  #ran: Vcpu | undefined;
  /** Who was woken in the part that runs: it is over for that. */
  #kicked: Vcpu | undefined;

  constructor(readonly options: HostOptions) {
    const { memory, cpu, cpus, seed, interleave = INTERLEAVE } = options;
    this.machine = new Machine({ memory, cpu, cpus });
    this.processors = this.machine.cpus.map((cpu) => new Processor(cpu));
    // Every slice gets somewhere, however long its first instruction takes: where it is asked within an
    // instruction, that one is counted already, and may be given up.
    this.machine.due = () =>
      this.#yields || (this.attention.due() && this.#passed > this.#sliceFrom + 1);
    this.scheduler = new Scheduler(seed, interleave, () => this.now);
    this.legs = new Legs(this.processors, this.scheduler);
    this.world = new World(options.unixTime, seed, () => this.machine.count);
    this.#register();
  }

  #register(): void {
    const { blocks, options: { cpu, memory, unixTime, seed } } = this;
    blocks.register({
      name: "host",
      version: 1,
      configuration: () => {
        const domains = this.domains.map(({ id, name }) => `${id} "${name}"`).join(", ") || "none";
        return { cpu, cpus: this.processors.length, memory, unixTime, seed, domains };
      },
      shape: record({}),
      save: () => ({}),
      load: () => void (this.#ran = undefined),
    });
    this.machine.register(blocks);
    this.world.register(blocks);
    this.legs.register(blocks);
    this.scheduler.register(
      blocks,
      this.processors,
      (id, n) => this.domains.find((d) => d.id === id)?.vcpus[n],
    );
  }
  readonly #known = (id: number): boolean => this.domains.some((d) => d.id === id);
  /** The hypervisor is on the machine: what it has set up there is its own. */
  registerHypervisor(frames: Frames): void {
    const { blocks, machine } = this;
    for (const cpu of machine.cpus) blocks.replace(hypervisorsProcessor(cpu));
    for (const { interrupts } of this.processors) interrupts?.register(blocks);
    frames.register(blocks, this.#known);
  }
  /** What each domain has that others share with it, by its id. */
  readonly peers: Map<number, Peer> = new Map();
  /** The hypervisor's own console. */
  readonly log: ConsoleLog = new ConsoleLog();
  /** Those that are there, in the order they came. */
  get domains(): readonly Domain[] {
    return this.#domains;
  }
  /** A domain that is complete is on the host. */
  join(domain: Domain): void {
    this.#domains.push(domain);
    for (const vcpu of domain.vcpus) {
      const { processor } = vcpu;
      processor.vcpus.push(vcpu);
      // Whoever had it for himself has it no longer.
      if (processor.turn?.ends === Infinity) processor.turn = null;
    }
    domain.register();
  }
  leave(domain: Domain): void {
    takeOut(this.#domains, domain);
    for (const vcpu of domain.vcpus) takeOut(vcpu.processor.vcpus, vcpu);
  }
  /** All domains', in their order. */
  get vcpus(): readonly Vcpu[] {
    return this.#domains.flatMap(({ vcpus }) => vcpus);
  }
  /** The processor that runs, or ran last. */
  get #active(): Processor {
    return this.processors[this.legs.processor];
  }
  /** That of the processor that runs, or ran last. */
  get now(): number {
    return this.#active.now;
  }
  /** Time that has passed on all processors together. */
  get #passed(): number {
    return this.processors.reduce((sum, { now }) => sum + now, 0);
  }
  /** The processor that runs waits for a device: time passes there (ns) without instructions. */
  stall(nanoseconds: number): void {
    this.#active.cpu.idle += nanoseconds;
  }
  /** Somebody from outside changes how long turns are, and what picks them: those under way are over. */
  setInterleave({ min, max }: Interleave, seed?: number): void {
    this.scheduler.setInterleave({ min, max }, seed);
    this.world.enter("interleave", 0, { min, max, seed: seed ?? null });
    for (const processor of this.processors) processor.turn = null;
    this.legs.end(0);
  }
  /** Who can run has changed: the processor that runs looks at the others next. */
  endLeg(): void {
    this.legs.end(this.now);
  }
  /** Something has come for a vCPU: one that waits has its turn as soon as the instruction is done. */
  kick(vcpu: Vcpu): void {
    const active = this.#active;
    if (vcpu.ready || !active.running || active.running === vcpu) return;
    vcpu.processor.turn = null;
    this.endLeg();
    active.endPart();
    this.#kicked ??= vcpu;
  }

  has(domain: number): boolean {
    return domain === 0 || this.#known(domain);
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

  /** Takes all vCPUs off their processors. */
  unload(): void {
    for (const processor of this.processors) processor.switchTo(undefined);
  }
  /** A vCPU that runs just now: this is called from within. */
  get running(): Vcpu | undefined {
    return this.processors.find(({ running }) => running)?.running;
  }

  /** A vCPU that waits: true if its devices, or anybody, have woken it, or it was started up. */
  #awake(v: Vcpu): boolean {
    const { domain: d, engine } = v;
    const { processor } = v, behind = processor.now < this.now;
    if (!v.online) {
      if (!engine.startUp()) return false;
      if (behind) processor.cpu.skipTo(this.now);
      d.wake(v);
      if (v.upcall?.fallsAsleep()) v.block();
      return v.ready || this.#awake(v);
    }
    // Another processor has woken it: not before that one's time.
    if (behind && engine.runnable()) processor.cpu.skipTo(this.now);
    if (!engine.waiting) d.runDue();
    if (this.#ends(d)) {
      this.yield();
      return false;
    }
    if (!engine.runnable()) {
      if (!engine.waiting) d.startClock();
      return false;
    }
    d.stopClock();
    d.wake(v);
    return true;
  }

  /** The vCPUs of a processor that can run, as they stand in the list. */
  #runnable({ vcpus }: Processor): Vcpu[] {
    return vcpus.filter((v) => v.goes && (v.ready || this.#awake(v)));
  }

  /**
   * Runs the vCPU whose turn it is, for at most `budget` instructions. Undefined if none can run. A turn
   * is as long in however many parts it runs.
   */
  runOnce(budget: number): Vcpu | undefined {
    if (this.running) {
      throw new Error("the host runs a domain already: this call came from within");
    }
    const active = this.#active;
    const processor = this.#unfinished(active)
      ? active
      : this.legs.next((one) => this.#isBusy(one), () => this.#nextWake());
    if (!processor) return undefined;
    const vcpu = this.#ofTurn(processor) ?? this.#beginTurn(processor);
    const { turn } = processor;
    if (vcpu && turn) {
      const ends = Math.min(turn.ends, this.legs.ends);
      const most = Math.min(budget, ends - this.now, this.#allowance(vcpu));
      this.#run(vcpu, Math.max(0, most));
    }
    return vcpu;
  }
  #isBusy(processor: Processor): boolean {
    return this.#ofTurn(processor) !== undefined || this.#runnable(processor).length > 0;
  }

  /** The vCPU whose turn is under way, if it can go on with it. */
  #ofTurn(processor: Processor): Vcpu | undefined {
    const { turn, now } = processor;
    if (!turn) return undefined;
    // What its domain may have, its vCPUs use up on other processors too.
    const over = turn.ends <= now || this.#allowance(turn.vcpu) <= 0;
    if (over && !this.#unfinished(processor)) return undefined;
    return turn.vcpu.goes && turn.vcpu.ready ? turn.vcpu : undefined;
  }
  /** Somebody stopped its vCPU in the midst of what goes on before anybody else does. */
  #unfinished({ turn }: Processor): boolean {
    if (!turn?.vcpu.engine.unfinished) return false;
    return turn.vcpu.goes && turn.vcpu.ready;
  }

  /** Chooses whose turn it is. Undefined if no vCPU can run; no turn if caps allow none. */
  #beginTurn(processor: Processor): Vcpu | undefined {
    const { scheduler } = this, { cpu, vcpus } = processor;
    const able = this.#runnable(processor);
    // A turn that stands still at a stop goes on, however long somebody thinks there.
    if (able.length === 0) return undefined;
    processor.turn = null;
    const within = able.filter((v) => this.#allowance(v) > 0);
    if (within.length === 0) {
      // All have used up what their caps allow: the processor idles to the next window.
      for (const v of able) v.preempt();
      cpu.skipTo(scheduler.nextWindow);
      processor.interrupts?.handlePending();
      return able[0];
    }
    if (vcpus.length === 1) {
      // Time that nobody else could have had is owed to nobody.
      able[0].share.owed = 0;
      return this.#turnOf(able[0], this.#allowance(able[0]));
    }
    const chosen = scheduler.choose(within, vcpus);
    const length = scheduler.turnLength(within, chosen);
    return this.#turnOf(chosen, Math.min(length, this.#untilWake(), this.#allowance(chosen)));
  }
  /** Time (ns) that its domain's cap leaves a vCPU. */
  #allowance({ domain }: Vcpu): number {
    return this.scheduler.allowance(domain.allotment);
  }
  /** A vCPU has its turn, for `length` ns; Infinity if it has its processor for itself. */
  #turnOf(vcpu: Vcpu, length: number): Vcpu {
    const { processor } = vcpu;
    for (const other of processor.vcpus) if (other !== vcpu) other.preempt();
    vcpu.begin();
    processor.turn = { vcpu, ends: this.now + length };
    return vcpu;
  }

  /** Time (ns) until a vCPU that waits has to be looked at. */
  #untilWake(): number {
    return Math.max(1, this.#nextWake() - this.now);
  }

  #run(vcpu: Vcpu, budget: number): void {
    const { domain, processor } = vcpu, started = this.now, { turn } = processor;
    const began: TurnBegin = { count: this.machine.count, time: started };
    this.#yields = false;
    this.#kicked = undefined;
    let end: SliceEnd;
    this.#tellOthers(vcpu);
    try {
      processor.switchTo(vcpu);
      domain.startClock();
      end = processor.run(vcpu, budget);
    } finally {
      // The turn may have been ended from within: what it took is paid for all the same.
      this.scheduler.burn(vcpu, this.now - started, turn);
      domain.left();
      domain.flush();
      if (this.#woken && !this.#driving) queueMicrotask(() => this.wake());
    }
    const ends = Math.min(processor.turn?.ends ?? 0, this.legs.ends);
    this.#finish(vcpu, end);
    const why = this.#whyOver(vcpu, end, this.now >= ends);
    this.turns.ran(vcpu, began, this.machine.count, why, this.#kicked);
    // A stop, a pause, an end: whoever waits for it acts here, and not wherever the slice would end.
    if (!domain.runs) this.yield();
  }

  /** All others hear that it has run, once until one of them has. */
  #tellOthers(vcpu: Vcpu): void {
    if (vcpu === this.#ran) return;
    this.#ran = vcpu;
    for (const { vcpus } of this.#domains) {
      for (const { engine } of vcpus) if (engine !== vcpu.engine) engine.othersRan();
    }
  }

  #finish(vcpu: Vcpu, end: SliceEnd): void {
    const { domain, engine, processor } = vcpu;
    const waits = end.kind === "blocked" || (end.kind === "stop" && end.blocked);
    const blocks = end.kind === "blocked" && domain.runs;
    if (blocks && !domain.ending && !engine.waiting && domain.deadline <= domain.now) {
      domain.run(domain.now);
    }
    if (waits) vcpu.block();
    if (end.kind === "offline") vcpu.goOffline();
    if (this.#ends(domain)) {
      // What a device has said comes before what the processor did.
    } else if (blocks) {
      // While a device outside owes an answer, no time passes.
      if (!engine.waiting) domain.startClock();
    } else if (end.kind === "end") {
      const { reason, detail } = end;
      domain.setState({ kind: "shutdown", reason, detail, vcpu: vcpu.id });
    } else if (end.kind === "stop" && !domain.ended) {
      domain.setState({ kind: "paused" });
    }
    if (domain.ended || !vcpu.ready) processor.turn = null;
  }

  #whyOver(vcpu: Vcpu, end: SliceEnd, usedUp: boolean): TurnEnd {
    const { domain, engine } = vcpu;
    if (domain.ended) return "end";
    if (end.kind === "offline") return "offline";
    if (vcpu.blocked) return engine.waiting ? "device" : "wait";
    if (end.kind === "stop" || !vcpu.goes) return "stop";
    if (this.#kicked) return "wake";
    return usedUp ? "length" : "under way";
  }

  /** A device has said that the guest ends; true if it now has. */
  #ends(domain: Domain): boolean {
    if (!domain.ending || domain.ended) return false;
    domain.setState({ kind: "shutdown", ...domain.ending });
    return true;
  }

  /** All its vCPUs wait with interrupts off, and nothing sends the NMI or INIT that alone would end that. */
  #isDeaf(d: Domain): boolean {
    return d.state.kind === "blocked" &&
      d.vcpus.every((v) =>
        !v.goes || !v.online ||
        (!v.engine.waiting && !v.engine.interruptible && !v.port?.unmaskable &&
          !v.engine.runnable())
      );
  }
  /** A domain that can never go on ends here, whoever else still runs. */
  #endDeaf(): void {
    for (const d of this.domains) {
      if (this.#isDeaf(d)) this.#endHung(d, "halted with interrupts off");
    }
  }
  #endHung(d: Domain, detail: string): void {
    // One that others of the domain could have woken, did they not stand.
    if (d.only) return d.pause();
    d.stopClock();
    d.setState({ kind: "shutdown", reason: "hang", detail, vcpu: 0 });
  }

  /** Machine time at which the next domain that waits has something to do; Infinity: never. */
  #nextWake(): number {
    let earliest = Infinity;
    for (const d of this.domains) {
      if (!d.runs || !d.vcpus.some((v) => v.goes && v.blocked && !v.engine.waiting)) continue;
      earliest = Math.min(earliest, d.deadline - d.timeOffset);
    }
    return earliest;
  }

  /** Lets idle time pass up to the next deadline. False if nothing will ever happen. */
  idle(): boolean {
    const next = this.#nextWake();
    if (next === Infinity) return false;
    for (const { cpu } of this.processors) cpu.skipTo(next);
    this.handleInterrupts();
    return true;
  }
  /** The host's own interrupts, while no guest runs. */
  handleInterrupts(): void {
    for (const { interrupts } of this.processors) interrupts?.handlePending();
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
    if (this.#driving || this.running) return;
    this.#driving = true;
    this.#drive().catch((error) => {
      for (const d of this.domains) {
        if (d.runs) d.setState({ kind: "paused" });
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
      this.#sliceFrom = this.#passed;
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
    const next = this.#nextWake(), before = this.now;
    const wait = next === Infinity ? 1e9 : next - before;
    await this.world.pace(wait, new Promise((resolve) => this.#wake = resolve));
    this.#wake = undefined;
    if (this.now === before && next !== Infinity && this.#blocked) this.idle();
  }

  /** Nothing inside will ever wake the domains that wait. */
  #hang(): void {
    // A device model outside has yet to answer; it wakes the driver.
    const waits = ({ domain, engine }: Vcpu) => domain.state.kind === "blocked" && engine.waiting;
    if (this.vcpus.some(waits)) return;
    for (const d of this.domains) {
      if (d.state.kind === "blocked") {
        const calls = d.vcpus.map(({ id, upcall }) =>
          upcall?.described && `vCPU ${id} ${upcall.described}`
        )
          .filter((call) => call !== undefined);
        const halted = calls.length > 0 ? `${calls.join(", ")},` : "halted";
        this.#endHung(d, `${halted} with nothing left that could wake it`);
      }
    }
  }
}
