/**
 * The hypervisor on a simulated host: domains are made here.
 *
 * @module
 */
import { demoGuest } from "../builder/demo.ts";
import type { StoreClient } from "../dom0/client.ts";
import { Domain0 } from "../dom0/domain0.ts";
import { build, type BuiltDomain, type DomainConfig, planOf } from "../builder/domain.ts";
import { SymbolTable } from "../builder/symbols.ts";
import { Host, type HostOptions } from "../xen/host.ts";
import { hostHash, loadHost, saveHost } from "../xen/state.ts";
import { diffStates } from "../xen/state_diff.ts";
import { flag } from "./check.ts";
import { GuestDomain, subjectOf } from "./domain.ts";
import { HostCpu } from "./host_cpu.ts";
import {
  configOf,
  DEMO_OPTIONS,
  DOMAIN_OPTIONS,
  type DomainOptions,
  START_OPTIONS,
  type StartOptions,
  toInterleave,
} from "./options.ts";
import { findSymbols } from "./symbol_files.ts";
import { bold, counted, grouped, INSPECT, type InspectOptions, sizeText } from "./values.ts";
import type { Memory } from "./views/memory.ts";
import { Picture } from "./views/picture.ts";
import { Schedule, type ScheduleOptions } from "./views/schedule.ts";
import { machineMemory } from "./views/spaces.ts";
import { blocksOf, type StateBlocks, StateDiff } from "./views/state_view.ts";

/** Seconds since 1970: 2026-01-01. */
const DEFAULT_TIME = 1_767_225_600;

/** The simulated host under a hypervisor: for what this program's own modules check of it. */
export let hostUnder: (hv: Hypervisor) => Host;

/**
 * The hypervisor, and the simulated computer under it.
 *
 * @example
 * ```ts
 * import { Hypervisor } from "xvm";
 *
 * await using hv = await Hypervisor.start({ cpu: "intel", memory: "64M" });
 * if (hv.domains.length !== 0) throw new Error("unexpected");
 * ```
 */
export class Hypervisor implements AsyncDisposable {
  static {
    hostUnder = (hv) => hv.#host;
  }
  readonly #options: HostOptions;
  #made: Host | undefined;
  #domains: GuestDomain[] = [];
  /** Why it cannot be used any longer. */
  #gone: string | undefined;

  private constructor(options: StartOptions) {
    const checked = START_OPTIONS(options, "Hypervisor.start");
    const { cpu = "intel", memory = 2 ** 29, seed = 1, unixTime = DEFAULT_TIME } = checked;
    const { cpus, interleave } = checked;
    this.#options = { cpu, memory, seed, unixTime, cpus, interleave };
  }

  /**
   * Starts a host.
   *
   * @throws {TypeError} for an option it does not have
   */
  static start(options: StartOptions = {}): Promise<Hypervisor> {
    try {
      return Promise.resolve(new Hypervisor(options));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * A host with the built-in demo guest on it, paused at its first instruction.
   *
   * @param options as for {@linkcode Hypervisor.start}, with 64 MiB if nothing else is said; and of the
   *   domain its `type`, `paging` and `cpuid`
   * @throws {TypeError} for an option it does not have
   */
  static async demo(
    options: StartOptions & {
      type?: "bare" | "hvm";
      paging?: "hap" | "shadow";
      cpuid?: DomainOptions["cpuid"];
    } = {},
  ): Promise<Hypervisor> {
    const { type = "hvm", paging = "hap", cpuid, ...rest } = options;
    DEMO_OPTIONS({ type, paging, cpuid }, "Hypervisor.demo");
    const hv = new Hypervisor({ memory: "64M", ...rest });
    const { image, symbols } = demoGuest();
    const domain = await hv.createDomain({
      name: "demo",
      type,
      paging,
      kernel: image,
      memory: "16M",
      cpuid,
    });
    domain.setSymbols(new SymbolTable("the demo guest", symbols));
    return hv;
  }

  /** Domain 0, once there is a domain that knows Xen. */
  #domain0: Domain0 | undefined;

  /** The host: made at the first need, because a bare domain brings its own memory. */
  get #host(): Host {
    if (this.#gone !== undefined) throw new Error(this.#gone);
    return this.#made ??= new Host(this.#options);
  }

  /** The domains, in the order they were made. */
  get domains(): readonly GuestDomain[] {
    return this.#domains;
  }
  /** The host's processors. */
  get cpus(): readonly HostCpu[] {
    return this.#host.processors.map(({ id }) => new HostCpu(() => this.#host, id));
  }
  /** The hypervisor's own console, the last of it: what domains write there by console_io, in lines. */
  get log(): string {
    return this.#host.log.text;
  }
  /** Machine memory: what the processor addresses without any translation. */
  get memory(): Memory {
    void this.#host;
    return machineMemory(() => this.#host, () => this.#gone);
  }
  /** Idle guests follow the clock on the wall, because somebody sits before them. */
  get interactive(): boolean {
    return this.#made?.interactive ?? false;
  }
  set interactive(on: boolean) {
    this.#host.interactive = flag(on, "interactive");
  }

  /**
   * Makes a domain; it is paused before its first instruction.
   *
   * @throws {Error} if a file cannot be read or is no kernel, memory does not suffice, or what is
   *   asked for is not available yet
   */
  async createDomain(options: DomainOptions): Promise<GuestDomain> {
    if (this.#gone !== undefined) throw new Error(`createDomain: ${this.#gone}`);
    const checked = DOMAIN_OPTIONS(options, "createDomain");
    const config = configOf(checked, () => this.#freeName());
    const symbols = findSymbols(checked);
    const built = await this.#build(config);
    const domain = new GuestDomain(built, symbols, () => {
      this.#domains = this.#domains.filter((d) => d !== domain);
    });
    this.#domains.push(domain);
    return domain;
  }

  /** The number of domains there will be, or the next that no domain has. */
  #freeName(): string {
    const taken = new Set(this.#domains.map(({ name }) => name));
    let n = this.#domains.length + 1;
    while (taken.has(`guest${n}`)) n++;
    return `guest${n}`;
  }

  async #build(config: DomainConfig): Promise<BuiltDomain> {
    // The machine is a bare guest's: it has just the guest's memory and, if nobody says more, its vCPUs.
    const alone = planOf(config).alone && !this.#made?.domains.length;
    const { memory, vcpus } = config, { cpus = vcpus } = this.#options;
    if (alone) this.#made = new Host({ ...this.#options, memory, cpus });
    const built = await build(this.#host, config);
    if (config.xen) (this.#domain0 ??= new Domain0(this.#host)).introduce(built.domain);
    return built;
  }

  /**
   * Xenstore: what domains tell one another by names. Reads, writes, watches, transactions as domain 0; it
   * prints as a tree.
   *
   * @throws {Error} before there is a domain that knows Xen
   * @example
   * ```ts
   * import { Hypervisor } from "xvm";
   *
   * await using hv = await Hypervisor.start();
   * let missing = "";
   * try {
   *   hv.xenstore.read("/local");
   * } catch (error) {
   *   missing = (error as Error).message;
   * }
   * if (!missing.includes("xen: true")) throw new Error("unexpected");
   * ```
   */
  get xenstore(): StoreClient {
    if (this.#gone !== undefined) throw new Error(this.#gone);
    if (this.#domain0) return this.#domain0.store;
    throw new Error("xenstore: there is none before a domain that knows Xen is made (xen: true)");
  }
  /** Domains, and the event channels and grants between them: it prints in 80 columns, `svg()` draws it. */
  picture(): Picture {
    return new Picture(this.#host);
  }
  /** A hash of the whole host's state, as 16 hexadecimal digits; equal states have equal hashes. */
  stateHash(): string {
    return hostHash(this.#host);
  }
  /**
   * The whole host as bytes; equal states give equal bytes. Frames that are all zero cost nothing.
   * What a device in a script remembers is not in it: a request that it owes an answer to is made
   * again when the state is loaded.
   *
   * @throws {Error} while a domain runs
   */
  save(): Uint8Array {
    this.#mustStand("save");
    return saveHost(this.#host);
  }
  /**
   * Puts the host into a saved state. It must have the same domains, made from the same options in the
   * same order. All is checked first: refused, the state changes nothing. Breakpoints stay. What
   * was under way before is over: stops can no longer be answered; whoever waits for one, for a text on a
   * console or for an end gets {@linkcode GuestStopped} with the reason "loaded"; the answer that a device
   * in a script still owes is dropped (`dom.ioreq.dropped` says so), and it is asked again.
   *
   * @throws {RecordError} for bytes that are damaged, of another version or of another configuration,
   *   naming what differs
   * @throws {Error} while a domain runs
   */
  load(state: Uint8Array): void {
    this.#mustStand("load");
    loadHost(this.#host, state);
    // Those that wait for an interrupt go on waiting for it.
    const host = this.#host;
    setImmediate(() => {
      if (host.domains.some((d) => d.state.kind === "blocked")) host.wake();
    });
  }
  /**
   * The state as it is now, but for the contents of memory: a copy of each block's record by its name,
   * `hv.blocks["domain 1 pit"]` say. It prints as a table of the blocks.
   */
  get blocks(): StateBlocks {
    return blocksOf(this.#host.blocks);
  }
  /**
   * What differs between two saved states, or between one and the present state: in words, with the block
   * and the field (a chip's register, a vCPU's, what the scheduler knows), and of memory each guest frame
   * with the first bytes that differ.
   *
   * @param a bytes that {@linkcode Hypervisor.save} gave, of this host or of any other
   * @param b the same; the present state if not given
   * @throws {RecordError} for bytes that are no state, of another version, or damaged
   * @throws {Error} while a domain runs, if the present state is asked for
   * @example
   * ```ts
   * import { Hypervisor } from "xvm";
   *
   * await using hv = await Hypervisor.demo();
   * const [dom] = hv.domains, before = hv.save();
   * dom.memory.write(0x1000, new Uint8Array([1, 2, 3]));
   * const diff = hv.diff(before); // console.log(diff) prints a table
   * const [row] = diff.differences.filter(({ block }) => block === "domain 1 memory");
   * if (row.path !== "guest frame 0x1 + 0x0") throw new Error("unexpected");
   * if (row.values[1] !== "01 02 03 00 00 00 00 00") throw new Error("unexpected");
   * ```
   */
  diff(a: Uint8Array, b?: Uint8Array): StateDiff {
    if (b === undefined) {
      this.#mustStand("diff");
      return new StateDiff(diffStates(a, saveHost(this.#host)), ["before", "now"]);
    }
    return new StateDiff(diffStates(a, b), ["a", "b"]);
  }
  /**
   * How many instructions vCPUs of one domain, and processors, run in turn; it can be set while all
   * domains stand. With a `seed`, that one picks the lengths from there on: so one saved state is tried
   * with many interleavings, and each of them repeats. Turns under way are over.
   *
   * @throws {RangeError} for lengths that cannot be: see {@linkcode StartOptions}
   * @throws {Error} while a domain runs, and before there is one
   * @example
   * ```ts
   * import { Hypervisor } from "xvm";
   *
   * await using hv = await Hypervisor.demo();
   * const before = hv.save();
   * for (const seed of [1, 2, 3]) {
   *   hv.load(before);
   *   hv.interleave = { min: 1, max: 20, seed };
   *   await hv.domains[0].until("hlt");
   * }
   * if (hv.interleave.max !== 20) throw new Error("unexpected");
   * ```
   */
  get interleave(): { readonly min: number; readonly max: number; readonly seed?: number } {
    return { ...this.#host.scheduler.interleave };
  }
  set interleave(
    wanted: { readonly min: number; readonly max: number; readonly seed?: number },
  ) {
    const { lengths, seed } = toInterleave(wanted, "interleave");
    this.#mustStand("interleave");
    if (this.#domains.length === 0) {
      throw new Error(
        "interleave: there is no domain yet; Hypervisor.start({ interleave, seed }) says how it begins",
      );
    }
    this.#host.setInterleave(lengths, seed);
  }
  /**
   * The last turns of the host's vCPUs: on which processor, from where on, how many instructions, why
   * each was over, and where its vCPU stood then. What one vCPU runs before another does is one turn. Some
   * 4,000 are kept, and none from before a state that was loaded.
   *
   * @param which `last` so many (40 if not given); those of a `domain`, a `vcpu`, a `processor`, by number
   * @returns the newest last; it prints as a table
   * @example
   * ```ts
   * import { Hypervisor } from "xvm";
   *
   * await using hv = await Hypervisor.demo();
   * const [dom] = hv.domains;
   * await dom.until("hlt");
   * const [turn] = hv.schedule({ last: 1, vcpu: 0 }); // console.log(hv.schedule()) prints a table
   * if (turn.end !== "stop" || turn.count + turn.instructions !== hv.cpus[0].instructions) {
   *   throw new Error("unexpected");
   * }
   * ```
   */
  schedule(which: ScheduleOptions = {}): Schedule {
    const domains = this.#domains.map((domain) => subjectOf(domain));
    return Schedule.last(this.#host, domains, which);
  }
  #mustStand(what: string): void {
    const { running } = this.#host;
    if (running) {
      throw new Error(
        `${what}: domain ${running.domain.name} is in the middle of an instruction: this was called from ` +
          `within its run; await its stop first`,
      );
    }
    const able = this.#domains.find((d) => d.state === "running" && !d.blocked);
    if (able) throw new Error(`${what}: domain ${able.name} is running; pause it first`);
  }

  /** It was closed, and cannot be used any longer. */
  get closed(): boolean {
    return this.#gone !== undefined;
  }
  /** Destroys all domains, and gives the host up. */
  close(): Promise<void> {
    for (const domain of [...this.#domains]) domain.destroy();
    const count = grouped(this.#made?.machine.count ?? 0);
    this.#gone ??= `this hypervisor is closed, since instruction ${count}; ` +
      "another is started by await Hypervisor.start()";
    this.#made = undefined;
    return Promise.resolve();
  }
  /** Closes it, at the end of an `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    if (this.#gone !== undefined) return this.#gone;
    const { cpu, memory, cpus = 1 } = this.#made?.options ?? this.#options;
    const rows = this.#domains.map((d) => `  ${d.id}  ${d.name}  ${d.type}  ${d.state}`);
    const dropped = this.#made?.world.dropped ?? 0;
    const processors = cpus > 1 ? `${cpus} processors and ` : "";
    return [
      bold(`hypervisor on a simulated ${cpu} host with ${processors}${sizeText(memory)}`, options),
      ...(rows.length ? rows : ["  no domains: await hv.createDomain({ name, type, kernel, … })"]),
      ...(dropped
        ? [`  of what came from outside, ${counted(dropped, "entry", "entries")} not kept`]
        : []),
      "  createDomain(options) domains cpus memory schedule() stateHash() save() load(state) diff(state) close()",
    ].join("\n");
  }
}
