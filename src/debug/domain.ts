/**
 * A domain as scripts and the shell hold it.
 *
 * @module
 */
import type { Board } from "../builder/board.ts";
import type { Bus } from "../devices/bus.ts";
import type { BuiltDomain } from "../builder/domain.ts";
import { KERNEL_MAX, readFile } from "./files.ts";
import { isElf, readElf } from "../builder/elf.ts";
import { readElfSymbols, readSystemMap, SymbolTable } from "../builder/symbols.ts";
import type { Domain as Inner } from "../xen/domain.ts";
import type { Host } from "../xen/host.ts";
import { HvmEngine } from "../xen/hvm.ts";
import { isPromise } from "../xen/ioreq.ts";
import type { ShadowCounts } from "../xen/shadow.ts";
import type { PoolCounts } from "../xen/shadow_pool.ts";
import type { BreakOptions, Breakpoint } from "./events/breakpoint.ts";
import { Console } from "./views/console.ts";
import { CpuidTable } from "./views/cpuid.ts";
import { Debugger } from "./debugger.ts";
import { held, orNever } from "./held.ts";
import { goneText, mustLive } from "./gone.ts";
import type { FieldsOf, Filters, Kind } from "./kinds.ts";
import { type ByteSource, Memory } from "./views/memory.ts";
import { domainHash } from "./views/domain_hash.ts";
import { GuestStopped, type Stop } from "./events/stop.ts";
import {
  abortSignal,
  callable,
  options as optionsOf,
  pairOf,
  textOrBytes,
  toCount,
  u16,
  whole,
  wrongType,
} from "./check.ts";
import {
  bold,
  counted,
  grouped,
  hex,
  INSPECT,
  type InspectOptions,
  sizeText,
  tableText,
  timeText,
} from "./values.ts";
import { ShadowView } from "./views/shadow.ts";
import { GuestVcpu } from "./vcpu.ts";

/** A stop of one kind, with that kind's fields. */
export type StopOf<K extends string> = Stop & { readonly kind: K } & FieldsOf<K>;

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

/** A device in a script: what its ports, or memory addresses, answer. */
export interface DeviceHandlers {
  /** Gives what a read of `size` bytes at an address gets; a promise lets the guest wait. */
  read?(address: number, size: number): number | undefined | Promise<number | undefined>;
  /** Takes what is written, `size` bytes; if it returns a promise the guest waits. */
  write?(address: number, value: number, size: number): unknown;
}

/** Where a device in a script answers: first and last port, or guest-physical address. */
export interface DeviceRange {
  /** I/O ports, both included. */
  readonly port?: readonly [first: number, last: number];
  /** Guest-physical addresses, both included. */
  readonly mmio?: readonly [first: number, last: number];
}

/** What a verb that waits takes besides its filter. */
export interface UntilOptions<K extends string = string> {
  /** Which matches are meant; a function may stand in place of these options. */
  readonly predicate?: (stop: StopOf<K>) => boolean;
  /** Ends the wait: it rejects with the signal's reason. What `until` let run is paused. */
  readonly signal?: AbortSignal;
}

/** What a verb asks of each match: true for the one that is meant. */
export type Predicate<K extends string> = (stop: StopOf<K>) => boolean;

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
  /** Number on its host, from 1; never given again. */
  readonly id: number;
  /** What it was created as. */
  readonly name: string;
  /** On the processor itself, or in a hardware virtual machine (PVH guests, too). */
  readonly type: "bare" | "hvm";
  /** Its virtual processors: one. */
  readonly vcpus: readonly GuestVcpu[];
  /** Guest-physical memory. */
  readonly memory: Memory;
  /** Its text console: the first serial port, and the debug port. */
  readonly console: Console;
  /** What CPUID tells the guest; it prints as a table, and can be changed at any time. */
  readonly cpuid: CpuidTable;
  /** The text screen: `screen.text()`. */
  readonly screen: { text(): string };
  /**
   * Devices in scripts; of answers that came too late, the last in words. `onDropped` calls a listener
   * with each; what it returns ends that.
   */
  readonly ioreq: {
    serve(range: DeviceRange, handlers: DeviceHandlers): () => void;
    readonly dropped: readonly string[];
    onDropped(listener: (text: string) => void): () => void;
  };
  #symbols: SymbolTable | undefined;
  /** @ignore */
  readonly host: Host;
  readonly #inner: Inner;
  readonly #board: Board;
  readonly #debugger: Debugger;
  readonly #destroyed: () => void;
  #end = newEnd();

  /** @ignore Made by `Hypervisor.createDomain`. */
  constructor(built: BuiltDomain, symbols: SymbolTable | undefined, destroyed: () => void) {
    const { host, domain, board } = built;
    this.host = host;
    this.#inner = domain;
    this.#board = board;
    this.#symbols = symbols;
    this.#destroyed = destroyed;
    this.id = domain.id;
    this.name = domain.name;
    this.type = domain.type;
    this.memory = new Memory(new PhysicalSource(domain), () => this.symbols);
    this.console = new Console(domain);
    this.cpuid = new CpuidTable(domain);
    this.screen = {
      text: () => {
        mustLive(domain, "screen.text");
        return board.vga.text();
      },
    };
    this.vcpus = [new GuestVcpu(this)];
    this.#debugger = new Debugger(this, domain);
    const dropped: string[] = [];
    this.ioreq = {
      serve: (range, handlers) => this.#serve(range, handlers),
      dropped,
      onDropped(listener) {
        mustLive(domain, "ioreq.onDropped");
        callable(listener, "ioreq.onDropped");
        domain.onNote.add(listener);
        return () => void domain.onNote.delete(listener);
      },
    };
    domain.onNote.add((text) => {
      if (dropped.push(text) > MAX_DROPPED) dropped.shift();
    });
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
      reject(this.#debugger.stopped({ kind: "loaded" }, "end"));
    });
  }

  /** @ignore */
  get inner(): Inner {
    return this.#inner;
  }
  /** @ignore */
  get debugger_(): Debugger {
    return this.#debugger;
  }
  /** @ignore */
  get vcpu(): GuestVcpu {
    return this.vcpus[0];
  }
  /** The devices of its motherboard, by name: `devices.get("pic")`. */
  get devices(): Bus {
    mustLive(this.#inner, "devices");
    return this.#board.bus;
  }

  /** "running", "paused", or how it ended: "poweroff (ACPI S5)". */
  get state(): string {
    const { state } = this.#inner;
    return state.kind === "blocked" ? "running" : this.#inner.describe();
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
    return this.#inner.ended ? promise : orNever(this.#inner, promise);
  }
  /** It waits for an interrupt. */
  get blocked(): boolean {
    return this.#inner.state.kind === "blocked";
  }
  /** Where it stands, if it stands at a stop. */
  get stop(): Stop | undefined {
    return this.#debugger.at;
  }
  /** @ignore */
  isAt(stop: Stop): boolean {
    return this.#debugger.at === stop;
  }

  /** Names of addresses; set by `symbols` of createDomain, or {@linkcode GuestDomain.loadSymbols}. */
  get symbols(): SymbolTable | undefined {
    return this.#symbols;
  }
  /** Reads symbols from a System.map or an ELF file: a path, or its bytes. */
  loadSymbols(source: string | Uint8Array): SymbolTable {
    textOrBytes(source, "loadSymbols");
    return this.#symbols = readSymbols(source);
  }
  /** Takes symbols that were made elsewhere. */
  setSymbols(symbols: SymbolTable): void {
    if (!(symbols instanceof SymbolTable)) throw wrongType("setSymbols", "a SymbolTable", symbols);
    this.#symbols = symbols;
  }
  /** @ignore An address, with its symbol if one is near. */
  name_(address: bigint): string {
    const symbol = this.#symbols?.format(address);
    return `${hex(address, 8)}${symbol ? ` <${symbol}>` : ""}`;
  }

  /** Exits by kind, counted; prints as a table. */
  get exits(): Record<string, number> {
    const { exits, count } = this.#inner;
    const copy = { ...exits };
    return Object.defineProperty(copy, INSPECT, { value: () => exitsText(copy, count) });
  }
  /** What it has used so far; a copy. */
  statistics(): Statistics {
    const { exits, count, now } = this.#inner;
    const shadow = this.#engine?.shadow;
    const counts = shadow && { shadow: { ...shadow.counts, ...shadow.pool.counts } };
    return { instructions: count, exits: { ...exits }, time: now, ...counts };
  }
  /** A hash of the guest's state: registers, memory, devices; as 16 hexadecimal digits. */
  stateHash(): string {
    mustLive(this.#inner, "stateHash");
    return domainHash(this);
  }
  /** Its shadow page tables, if it has shadow paging. */
  get shadow(): ShadowView | undefined {
    mustLive(this.#inner, "shadow");
    const { shadow } = this.#engine ?? {};
    return shadow && new ShadowView(shadow, this.#inner);
  }
  get #engine(): HvmEngine | undefined {
    const { engine } = this.#inner.vcpus[0];
    return engine instanceof HvmEngine ? engine : undefined;
  }
  /** @ignore Guest-physical address of a machine one. */
  guestPhysical(machine: number): bigint | undefined {
    const engine = this.#engine;
    if (!engine) return BigInt(machine);
    const frame = engine.p2m.guestFrame(Math.floor(machine / 4096));
    return frame < 0 ? undefined : BigInt(frame * 4096 + machine % 4096);
  }

  /** A device whose calls the domain stands still for. */
  #held({ read, write }: DeviceHandlers): DeviceHandlers {
    // What has a `then` of its own begins here, too.
    const begun = (answer: unknown) => isPromise(answer) ? Promise.resolve(answer) : answer;
    const call = <T>(fn: () => T) =>
      held(this.#inner, "its device's answer", () => begun(fn()) as T, (answer) => answer);
    return {
      ...(read && { read: (address, size) => call(() => read(address, size)) }),
      ...(write && { write: (address, value, size) => call(() => write(address, value, size)) }),
    };
  }

  #serve(range: DeviceRange, handlers: DeviceHandlers): () => void {
    mustLive(this.#inner, "ioreq.serve");
    if (!this.#engine) {
      throw new Error(
        `domain ${this.name} runs on the bare processor: its accesses leave no I/O requests; a ` +
          `domain of type "hvm" has them`,
      );
    }
    // While the answer is awaited time stands still for the guest.
    return this.#inner.servers.serve({
      ...DEVICE_RANGE(range, "ioreq.serve"),
      ...this.#held(handlersOf(handlers)),
    });
  }

  // --- running ---

  /**
   * Its share of the processor beside other domains, 1 to 65535: twice the weight, twice the time.
   *
   * @throws {RangeError} for anything else
   */
  get weight(): number {
    return this.#inner.weight;
  }
  set weight(weight: number) {
    mustLive(this.#inner, "weight");
    this.#inner.weight = toCount(weight, "weight", 1, 65535);
  }
  /** Most of the processor it gets, in percent, even if nobody else wants it; 0: no cap. */
  get cap(): number {
    return this.#inner.cap;
  }
  set cap(cap: number) {
    mustLive(this.#inner, "cap");
    this.#inner.cap = toCount(cap, "cap", 0, 100);
  }
  /** Its part of the machine's time since it was made, 0 to 1. */
  get cpuShare(): number {
    const times = this.#inner.vcpus.map(({ runstate: { time } }) => time);
    const used = times.reduce((sum, { running }) => sum + running, 0);
    const since = Object.values(times[0]).reduce((sum, time) => sum + time);
    return since > 0 ? used / since : 0;
  }

  /** Lets it run; what happens is told to breakpoints and to those who wait. */
  unpause(): void {
    mustLive(this.#inner, "unpause");
    this.#inner.unpause();
    // The driver may be about to rest just now.
    setImmediate(() => {
      const { kind } = this.#inner.state;
      if (kind === "running" || kind === "blocked") this.#inner.host.wake();
    });
  }
  /** It stands still at the next instruction. */
  pause(): void {
    mustLive(this.#inner, "pause");
    this.#debugger.pause();
  }
  /**
   * Lets it run until something stops it.
   *
   * @returns the stop; one of kind "end" if the guest ended; null if it was paused
   * @throws {GuestStopped} if the host is put into a saved state meanwhile
   */
  async continue(): Promise<Stop | null> {
    mustLive(this.#inner, "continue");
    const outcome = await this.#debugger.run();
    if (outcome.kind === "loaded") throw this.#debugger.stopped(outcome, "continue");
    return outcome.kind === "paused" ? null : outcome.stop;
  }
  /**
   * Calls `listener` each time the domain has come to stand still, whoever let it run: with the stop,
   * with one of kind "end", or with null if it was paused. An action that is under way is waited for.
   *
   * @returns what ends that
   */
  onStop(listener: (stop: Stop | null) => void): () => void {
    mustLive(this.#inner, "onStop");
    callable(listener, "onStop");
    this.#debugger.onStop.add(listener);
    return () => void this.#debugger.onStop.delete(listener);
  }
  /** Ends it and gives back all it holds. */
  destroy(): void {
    const inner = this.#inner;
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
   * @param filter which of them; a key the kind does not have is refused
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
    return this.#debugger.add(kind, filter ?? {}, breakOptions(action) as BreakOptions);
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
    const { breakpoint, signal } = this.#awaited(kind, filter, which);
    return await this.#debugger.until(breakpoint, signal) as StopOf<K> | GuestStopped;
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
    const breakpoint = this.#debugger.add(
      kind,
      filter ?? {},
      { action: keep, ...breakOptions(action) } as BreakOptions,
      { traces: true },
    );
    return Object.assign(breakpoint, { events });
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
    const { breakpoint, signal } = this.#awaited(kind, filter, which);
    return await this.#debugger.wait(breakpoint, signal) as StopOf<K>;
  }

  /** The breakpoint that is waited for once, and what ends that. */
  #awaited<K extends Kind>(
    kind: K,
    filter: Partial<Filters[K]> | undefined,
    which: Predicate<K> | UntilOptions<K> | undefined,
  ): { breakpoint: Breakpoint; signal?: AbortSignal } {
    if (which !== undefined && !/^(function|object)$/.test(typeof which)) {
      throw wrongType(`${kind} predicate`, "a function, or { predicate, signal }", which);
    }
    const given = typeof which === "function" ? { predicate: which } : which ?? {};
    const { predicate, signal } = UNTIL_OPTIONS(given, kind);
    signal?.throwIfAborted();
    const options = { predicate } as BreakOptions;
    return {
      breakpoint: this.#debugger.add(kind, filter ?? {}, options, { temporary: true }),
      signal,
    };
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
      else if (this.#inner.ended) return;
      else throw stop;
    }
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const { count, now, memory, weight, cap } = this.#inner;
    const lines = [
      bold(`domain ${this.id} "${this.name}" (${this.type}), ${this.state}`, options),
      `  ${sizeText(memory.size)}, ${counted(this.vcpus.length, "vCPU")}, ${
        counted(count, "instruction")
      }, ` +
      `guest time ${timeText(now)}, weight ${weight}${cap ? `, cap ${cap} %` : ""}`,
    ];
    if (this.#symbols) {
      lines.push(`  ${counted(this.#symbols.size, "symbol")} from ${this.#symbols.source}`);
    }
    const exits = Object.values(this.#inner.exits).reduce((a, b) => a + b, 0);
    if (exits) lines.push(`  ${counted(exits, "exit")}`);
    const { dropped } = this.console;
    if (dropped) {
      lines.push(`  of its console, ${counted(dropped, "byte")} not kept (consoleMemory)`);
    }
    for (const b of this.breakpoints) lines.push(`  ${b[INSPECT]()}`);
    lines.push(
      "  break until tryUntil trace wait stops; continue pause unpause destroy; vcpus memory console",
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

const MAX_EVENTS = 10_000, MAX_DROPPED = 100;

/** @see UntilOptions */
const UNTIL_OPTIONS = optionsOf({ predicate: callable, signal: abortSignal });
/** @see DeviceRange */
const DEVICE_RANGE = optionsOf({
  port: pairOf(u16),
  mmio: pairOf(whole(0, Number.MAX_SAFE_INTEGER)),
});
/** A device's functions; it may be an object of a class. */
function handlersOf(device: DeviceHandlers): DeviceHandlers {
  if (typeof device !== "object" || device === null) {
    throw wrongType("ioreq.serve", "{ read(address, size), write(address, value, size) }", device);
  }
  const { read, write } = device;
  if (!read && !write) throw new TypeError("ioreq.serve: a device has read, write, or both");
  if (read) callable(read, "ioreq.serve read");
  if (write) callable(write, "ioreq.serve write");
  return { read: read?.bind(device), write: write?.bind(device) };
}

/** What stands where an action or more may be given. */
function breakOptions<S>(action: ((stop: S) => unknown) | BreakOptions<S> | undefined): object {
  if (action === undefined) return {};
  if (typeof action === "function") return { action };
  if (typeof action !== "object" || action === null) {
    throw wrongType("action", "a function, or { predicate, hits, once, action }", action);
  }
  return action;
}

function exitsText(exits: Record<string, number>, count: number): string {
  const rows = Object.entries(exits).sort((a, b) => b[1] - a[1]);
  if (rows.length === 0) return "no exits";
  const total = rows.reduce((sum, [, n]) => sum + n, 0);
  const table = rows.map(([kind, n]) => [
    kind,
    n,
    `${(100 * n / total).toFixed(1)} %`.padStart(7),
    grouped(Math.round(count / n)),
  ]);
  return tableText(["exit", "count", "share", "every … instructions"], [...table, [
    "all",
    total,
    "",
    "",
  ]]);
}

/** Symbols from a path or from bytes: System.map, or ELF. */
export function readSymbols(source: string | Uint8Array): SymbolTable {
  const file = typeof source === "string" ? source : "symbols";
  const bytes = typeof source === "string" ? readFile("symbols", source, KERNEL_MAX) : source;
  if (!isElf(bytes)) return readSystemMap(new TextDecoder().decode(bytes), file);
  const table = readElfSymbols(readElf(bytes, file));
  if (!table) throw new Error(`${file}: this ELF file has no symbol table (it is stripped)`);
  return table;
}

/** Guest-physical memory. */
class PhysicalSource implements ByteSource {
  readonly kind = "guest-physical";
  get gone(): string | undefined {
    return goneText(this.domain);
  }
  constructor(private readonly domain: Inner) {}
  get size(): number {
    return this.domain.memory.size;
  }
  read(address: bigint, length: number): Uint8Array {
    const at = Number(address);
    const { memory } = this.domain;
    if (at >= memory.size) {
      throw new RangeError(
        `guest-physical address ${hex(address)}: memory ends at ${hex(memory.size)}`,
      );
    }
    const page = Math.min(length, 4096 - at % 4096);
    try {
      return memory.read(at, Math.min(length, memory.size - at));
    } catch {
      // There is a hole on the way.
      return memory.read(at, page);
    }
  }
  write(address: bigint, bytes: Uint8Array): void {
    this.domain.host.world.enter("write", this.domain.id, { gpa: Number(address), bytes });
    this.domain.memory.write(Number(address), bytes);
  }
  next(address: bigint): bigint | undefined {
    return (address & ~0xfffn) + 4096n;
  }
}
