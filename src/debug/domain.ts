/**
 * A domain as scripts and the shell hold it: a thin door to the debugger, to what is shown, and to the
 * hypervisor's own domain.
 *
 * @module
 */
import { SymbolTable } from "../builder/symbols.ts";
import type { BuiltDomain } from "../builder/domain.ts";
import type { Bus } from "../devices/bus.ts";
import type { ShadowCounts } from "../xen/shadow.ts";
import type { PoolCounts } from "../xen/shadow_pool.ts";
import { callable, textOrBytes, toCount, wrongType } from "./check.ts";
import { Debugger } from "./debugger.ts";
import {
  type DeviceHandlers,
  type DeviceRange,
  type PendingRequest,
  scriptDevices,
} from "./devices.ts";
import type { Break, BreakOptions, Breakpoint } from "./events/breakpoint.ts";
import type { Stop } from "./events/stop.ts";
import {
  breakOptions,
  type Predicate,
  type StopOf,
  type UntilOptions,
  untilOptions,
} from "./events/verbs.ts";
import type { Filters, Kind } from "./kinds.ts";
import { Subject } from "./subject.ts";
import { readSymbols } from "./symbol_files.ts";
import { bold, counted, INSPECT, type InspectOptions, sizeText, timeText } from "./values.ts";
import { GuestVcpu } from "./vcpu.ts";
import { Console } from "./views/console.ts";
import { CpuidTable } from "./views/cpuid.ts";
import { domainHash } from "./views/domain_hash.ts";
import { EventChannelTable } from "./views/event_channels.ts";
import { exitCounts } from "./views/exits.ts";
import { Grants } from "./views/grants.ts";
import { type HypercallCounts, hypercallCounts } from "./views/hypercalls.ts";
import type { Memory } from "./views/memory.ts";
import { shadowCounts, shadowOf, type ShadowView } from "./views/shadow.ts";
import { guestMemory } from "./views/spaces.ts";
import { VcpuList } from "./views/vcpus.ts";
import { GuestStopped, orNever } from "./waits.ts";

/** How a domain ended. */
export interface Ending {
  /** "poweroff", "reset", "exit", "crash", "hang" or "destroyed". */
  readonly reason: string;
  /** More, in words: "ACPI S5", "triple fault". */
  readonly detail: string;
  /** It powered itself off. */
  readonly ok: boolean;
}

/** What a domain has used. */
export interface Statistics {
  /** Instructions retired. */
  readonly instructions: number;
  /** Exits by kind. */
  readonly exits: Record<string, number>;
  /** Guest time in nanoseconds. */
  readonly time: number;
  /** What shadow paging has done, where there is any. */
  readonly shadow?: ShadowCounts & PoolCounts;
}

/** What lies behind a domain: for what this program's own modules show and check of it. */
export let subjectOf: (domain: GuestDomain) => Subject;

/**
 * A domain: a guest, its memory, its vCPUs, its devices, and the four verbs over what happens in it.
 *
 * - {@linkcode GuestDomain.break} stays: it stops the domain, or acts, each time.
 * - {@linkcode GuestDomain.until} lets the domain run to the first match.
 * - {@linkcode GuestDomain.trace} never stops it.
 * - {@linkcode GuestDomain.wait} waits for a match in a domain that somebody else runs.
 *
 * @example
 * ```ts
 * import { Hypervisor } from "xvm";
 *
 * await using hv = await Hypervisor.demo();
 * const [dom] = hv.domains;
 * const stop = await dom.until("execute", { address: "timer" });
 * if (stop.address !== dom.symbols?.address("timer")) throw new Error("unexpected");
 * ```
 */
export class GuestDomain {
  static {
    subjectOf = (domain) => domain.#subject;
  }
  /** Number on its host, from 1; never given again. */
  readonly id: number;
  /** What it was created as. */
  readonly name: string;
  /** On the processor itself, or in a hardware virtual machine (PVH guests, too). */
  readonly type: "bare" | "hvm";
  /** Its virtual processors, by their number; prints as a table. */
  readonly vcpus: readonly GuestVcpu[];
  /** Guest-physical memory. */
  readonly memory: Memory;
  /** Its text console: the first serial port, and the debug port. */
  readonly console: Console;
  /** What CPUID tells the guest; it prints as a table, and can be changed at any time. */
  readonly cpuid: CpuidTable;
  /** Its event channels, if it knows Xen; prints as a table. */
  readonly eventChannels: EventChannelTable;
  /** Its grants, and what it has mapped of others, if it knows Xen; prints as tables. */
  readonly grants: Grants;
  /** The text screen: `screen.text()`. */
  readonly screen: { text(): string };
  /**
   * Devices in scripts, which print with the requests that they are at; of answers that came too late, the last in words. `onDropped` calls a listener
   * with each; what it returns ends that.
   */
  readonly ioreq: {
    serve(range: DeviceRange, handlers: DeviceHandlers): () => void;
    readonly dropped: readonly string[];
    onDropped(listener: (text: string) => void): () => void;
    /** The addresses that are served, in the order in which they are asked. */
    readonly servers: readonly DeviceRange[];
    /** Accesses that wait for their answer. */
    readonly requests: readonly PendingRequest[];
  };
  readonly #subject: Subject;
  readonly #debugger: Debugger;
  readonly #destroyed: () => void;
  #end = newEnd();

  /** @ignore Made by `Hypervisor.createDomain`. */
  constructor(built: BuiltDomain, symbols: SymbolTable | undefined, destroyed: () => void) {
    const { host, domain, board } = built;
    const subject = this.#subject = new Subject(host, domain, symbols);
    this.#destroyed = destroyed;
    this.id = domain.id;
    this.name = domain.name;
    this.type = domain.type;
    this.memory = guestMemory(subject);
    this.console = new Console(subject);
    this.cpuid = new CpuidTable(subject);
    this.screen = {
      text: () => {
        subject.mustLive("screen.text");
        return board.vga.text();
      },
    };
    this.grants = new Grants(subject);
    const vcpus = new VcpuList();
    const control = this.#debugger = new Debugger(subject, vcpus);
    for (const vcpu of subject.vcpus) vcpus.push(new GuestVcpu(this, vcpu, control));
    this.vcpus = vcpus;
    this.eventChannels = new EventChannelTable(
      subject,
      (kind, filter, options) => control.breaks.add(kind, filter, options).shown,
    );
    this.ioreq = scriptDevices(subject);
    domain.onState.add((state) => {
      if (state.kind === "shutdown") {
        const { reason, detail } = state;
        this.#end.resolve({ reason, detail, ok: reason === "poweroff" });
      } else if (state.kind === "destroyed") {
        this.#end.resolve({ reason: "destroyed", detail: "by request", ok: false });
      }
    });
    domain.onLoaded.add(() => {
      if (domain.ended) return;
      const { reject } = this.#end;
      this.#end = newEnd();
      reject(control.waiters.stopped({ kind: "loaded" }, "end"));
    });
  }

  /** The devices of its motherboard, by name: `devices.get("pic")`. */
  get devices(): Bus {
    this.#subject.mustLive("devices");
    return this.#subject.board.bus;
  }

  /** "running", "paused", or how it ended: "poweroff (ACPI S5)". */
  get state(): string {
    const { state } = this.#subject.inner;
    return state.kind === "blocked" ? "running" : this.#subject.inner.describe();
  }
  /**
   * Resolves when the guest powered off, crashed, or was destroyed.
   *
   * @throws {Error} (it rejects) in an action or a device that the domain stands still for: it would
   *   never come
   * @throws {GuestStopped} (it rejects) when the host is put into a saved state first; asked anew, it is
   *   the end from there on
   */
  get ended(): Promise<Ending> {
    const { promise } = this.#end;
    return this.#subject.inner.ended ? promise : orNever(this.#subject, promise);
  }
  /** It waits for an interrupt. */
  get blocked(): boolean {
    return this.#subject.inner.state.kind === "blocked";
  }
  /** Where it stands, if it stands at a stop. */
  get stop(): Stop | undefined {
    return this.#debugger.at?.stop;
  }

  /** Names of addresses; set by `symbols` of createDomain, or {@linkcode GuestDomain.loadSymbols}. */
  get symbols(): SymbolTable | undefined {
    return this.#subject.symbols;
  }
  /** Reads symbols from a System.map or an ELF file: a path, or its bytes. */
  loadSymbols(source: string | Uint8Array): SymbolTable {
    textOrBytes(source, "loadSymbols");
    return this.#subject.symbols = readSymbols(source);
  }
  /** Takes symbols that were made elsewhere. */
  setSymbols(symbols: SymbolTable): void {
    if (!(symbols instanceof SymbolTable)) throw wrongType("setSymbols", "a SymbolTable", symbols);
    this.#subject.symbols = symbols;
  }

  /** Exits by kind, counted; prints as a table. */
  get exits(): Record<string, number> {
    return exitCounts(this.#subject);
  }
  /**
   * Hypercalls it has made, counted by name, operation and error; prints as a table.
   *
   * @throws {Error} for a domain that does not know Xen
   */
  get hypercalls(): HypercallCounts {
    return hypercallCounts(this.#subject);
  }
  /** What it has used so far; a copy. */
  statistics(): Statistics {
    const { exits, count, now } = this.#subject.inner;
    const shadow = shadowCounts(this.#subject.vcpus);
    return { instructions: count, exits: { ...exits }, time: now, ...(shadow && { shadow }) };
  }
  /** A hash of the guest's state: registers, memory, devices; as 16 hexadecimal digits. */
  stateHash(): string {
    this.#subject.mustLive("stateHash");
    return domainHash(this.#subject);
  }
  /** Its first vCPU's shadow page tables, if it has shadow paging: each vCPU has its own. */
  get shadow(): ShadowView | undefined {
    return shadowOf(this.#subject.vcpus[0]);
  }

  // --- running ---

  /**
   * Its share of the processor beside other domains, 1 to 65535: twice the weight, twice the time.
   *
   * @throws {RangeError} for anything else
   */
  get weight(): number {
    return this.#subject.inner.weight;
  }
  set weight(weight: number) {
    this.#subject.mustLive("weight");
    this.#subject.inner.weight = toCount(weight, "weight", 1, 65535);
  }
  /**
   * Most that its vCPUs get together, in percent of one processor, even if nobody else wants it; 0: no
   * cap.
   */
  get cap(): number {
    return this.#subject.inner.cap;
  }
  set cap(cap: number) {
    this.#subject.mustLive("cap");
    this.#subject.inner.cap = toCount(cap, "cap", 0, 100 * this.vcpus.length);
  }
  /** Whose time it has: "own", or "host" as asked for or since it is bound to another domain. */
  get clock(): "own" | "host" {
    return this.#subject.inner.clock;
  }
  /** Its part of the machine's time since it was made, 0 to 1. */
  get cpuShare(): number {
    const times = this.#subject.inner.vcpus.map(({ runstate: { time } }) => time);
    const used = times.reduce((sum, { running }) => sum + running, 0);
    const since = Object.values(times[0]).reduce((sum, time) => sum + time);
    return since > 0 ? used / since : 0;
  }

  /** Lets it run; what happens is told to breakpoints and to those who wait. */
  unpause(): void {
    this.#debugger.go();
  }
  /** It stands still at the next instruction. */
  pause(): void {
    this.#subject.mustLive("pause");
    this.#debugger.pause();
  }
  /**
   * Lets it run until something stops it.
   *
   * @returns the stop; one of kind "end" if the guest ended; null if it was paused
   * @throws {GuestStopped} if the host is put into a saved state meanwhile
   */
  async continue(): Promise<Stop | null> {
    this.#subject.mustLive("continue");
    const outcome = await this.#debugger.run();
    if (outcome.kind === "loaded") throw this.#debugger.waiters.stopped(outcome, "continue");
    return outcome.kind === "paused" ? null : outcome.stop;
  }
  /**
   * Calls `listener` each time the domain has come to stand still, whoever let it run: with the stop,
   * with one of kind "end", or with null if it was paused. An action that is under way is waited for.
   *
   * @returns what ends that
   */
  onStop(listener: (stop: Stop | null) => void): () => void {
    this.#subject.mustLive("onStop");
    callable(listener, "onStop");
    const { onStop } = this.#debugger.waiters;
    onStop.add(listener);
    return () => void onStop.delete(listener);
  }
  /** Ends it and gives back all it holds. */
  destroy(): void {
    const inner = this.#subject.inner;
    if (inner.state.kind === "destroyed") return;
    inner.pause();
    for (const b of [...this.#debugger.breakpoints]) b.delete();
    inner.destroy();
    this.#destroyed();
  }

  // --- the verbs ---

  /** Breakpoints, watchpoints and traces there are. */
  get breakpoints(): readonly Breakpoint[] {
    return this.#debugger.breakpoints;
  }

  /**
   * A breakpoint that stays.
   *
   * @param kind what to break on: "execute", "watch", "step", or a kind of exit
   * @param filter which of them; a key the kind does not have is refused. `vcpu` says of which vCPU; of
   *   all if it is left out
   * @param action called at each match; what it returns decides (see {@linkcode BreakOptions.action}).
   *   Without one the domain stops. An object tells more: `{ predicate, hits, once, action }`.
   * @throws {TypeError} for an unknown kind, or a filter that does not fit it
   * @throws {Error} for exits of a bare domain, which has none
   */
  break<K extends Kind>(
    kind: K,
    filter?: Filters[K] extends { address: unknown } ? Filters[K] : Partial<Filters[K]>,
    action?: ((stop: StopOf<K>) => unknown) | BreakOptions<StopOf<K>>,
  ): Breakpoint {
    return this.#debugger.breaks.add(kind, filter ?? {}, breakOptions(action)).shown;
  }

  /**
   * Lets the domain run to the first match of a filter, and of a predicate where one is given. An object
   * tells more: `{ predicate, signal }`.
   *
   * @param kind as for {@linkcode GuestDomain.break}
   * @param filter which of them; what is left out matches all
   * @returns the stop, with the fields of its kind
   * @throws {GuestStopped} if the guest ends, is paused, or stops elsewhere first
   * @throws {TypeError} for an unknown kind, or a filter that does not fit it
   */
  async until<K extends Kind>(
    kind: K,
    filter?: Partial<Filters[K]>,
    which?: Predicate<K> | UntilOptions<K>,
  ): Promise<StopOf<K>> {
    const result = await this.tryUntil(kind, filter, which);
    if (result instanceof GuestStopped) throw result;
    return result;
  }

  /**
   * As {@linkcode GuestDomain.until}, but returns what it would throw when the guest stops first.
   *
   * @returns the stop, or why it did not come: tell them apart by `instanceof GuestStopped`
   */
  async tryUntil<K extends Kind>(
    kind: K,
    filter?: Partial<Filters[K]>,
    which?: Predicate<K> | UntilOptions<K>,
  ): Promise<StopOf<K> | GuestStopped> {
    const { awaited, signal } = this.#awaited(kind, filter, which);
    return await this.#debugger.until(awaited, signal) as StopOf<K> | GuestStopped;
  }

  /**
   * Calls `action` with each match, and never stops the guest. Without an action the last 10,000
   * events are kept in `events`. An object tells more: `{ predicate, hits, once, action }`.
   *
   * @param action called with each match; the event's registers are there while it runs
   * @returns the trace, which `delete()` ends
   * @throws {TypeError} as {@linkcode GuestDomain.break}
   */
  trace<K extends Kind>(
    kind: K,
    filter?: Partial<Filters[K]>,
    action?: ((event: StopOf<K>) => void) | BreakOptions<StopOf<K>>,
  ): Breakpoint & { readonly events: StopOf<K>[] } {
    const events: StopOf<K>[] = [];
    const keep = (event: StopOf<K>) => {
      events.push(event);
      if (events.length > MAX_EVENTS) events.shift();
    };
    const options = { action: keep, ...breakOptions(action) } as BreakOptions;
    const trace = this.#debugger.breaks.add(kind, filter ?? {}, options, { traces: true });
    return Object.assign(trace.shown, { events });
  }

  /**
   * Waits for a match without starting the guest; the domain stops at it.
   *
   * @throws {GuestStopped} if the guest ends first
   */
  async wait<K extends Kind>(
    kind: K,
    filter?: Partial<Filters[K]>,
    which?: Predicate<K> | UntilOptions<K>,
  ): Promise<StopOf<K>> {
    const { awaited, signal } = this.#awaited(kind, filter, which);
    return await this.#debugger.wait(awaited, signal) as StopOf<K>;
  }

  /** What is waited for once, and what ends that. */
  #awaited<K extends Kind>(
    kind: K,
    filter: Partial<Filters[K]> | undefined,
    which: Predicate<K> | UntilOptions<K> | undefined,
  ): { awaited: Break; signal?: AbortSignal } {
    const { options, signal } = untilOptions(kind, which);
    const { breaks } = this.#debugger;
    return { awaited: breaks.add(kind, filter ?? {}, options, { temporary: true }), signal };
  }

  /**
   * One stop after another; the guest stands still until the next turn of the loop. It is over when the
   * guest ends.
   *
   * @throws {GuestStopped} if it is paused, or stops elsewhere
   */
  async *stops<K extends Kind>(
    kind: K,
    filter?: Partial<Filters[K]>,
    which?: Predicate<K> | UntilOptions<K>,
  ): AsyncGenerator<StopOf<K>, void, void> {
    for (;;) {
      const stop = await this.tryUntil(kind, filter, which);
      if (!(stop instanceof GuestStopped)) yield stop;
      else if (this.#subject.inner.ended) return;
      else throw stop;
    }
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const { count, now, memory, weight, cap, clock, type } = this.#subject.inner;
    const whose = clock === "host" && type !== "bare" ? " (the host's)" : "";
    const lines = [
      bold(`domain ${this.id} "${this.name}" (${this.type}), ${this.state}`, options),
      `  ${sizeText(memory.size)}, ${counted(this.vcpus.length, "vCPU")}, ${
        counted(count, "instruction")
      }, ` +
      `guest time ${timeText(now)}${whose}, weight ${weight}${cap ? `, cap ${cap} %` : ""}`,
    ];
    const { symbols } = this;
    if (symbols) lines.push(`  ${counted(symbols.size, "symbol")} from ${symbols.source}`);
    const exits = Object.values(this.#subject.inner.exits).reduce((a, b) => a + b, 0);
    if (exits) lines.push(`  ${counted(exits, "exit")}`);
    const { dropped } = this.console;
    if (dropped) {
      lines.push(`  of its console, ${counted(dropped, "byte")} not kept (consoleMemory)`);
    }
    for (const b of this.breakpoints) lines.push(`  ${b[INSPECT]()}`);
    lines.push(
      "  break until tryUntil trace wait stops; continue pause unpause destroy; vcpus memory console",
      ...this.#subject.inner.xen ? ["  eventChannels grants hypercalls"] : [],
      "  screen devices cpuid ioreq symbols breakpoints exits statistics() stateHash()",
    );
    return lines.join("\n");
  }
}

/** A domain's end to come; whether anybody waits for it is nobody's affair. */
function newEnd(): PromiseWithResolvers<Ending> {
  const end = Promise.withResolvers<Ending>();
  end.promise.catch(() => {});
  return end;
}

/** Most events that a trace keeps. */
const MAX_EVENTS = 10_000;
