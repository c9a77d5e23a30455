/**
 * The hypervisor on a simulated host: domains are made here.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";
import { GUEST_TYPES, type GuestType } from "../abi/boot/images.ts";
import { GUEST_MEMORY, GUEST_PROCESSORS, MACHINE_MEMORY_MAX } from "../abi/limits.ts";
import { build, type BuiltDomain, type DomainConfig, planOf } from "../builder/domain.ts";
import type { BootModule, NamedBytes } from "../builder/load.ts";
import { demoGuest } from "../builder/demo.ts";
import { SymbolTable } from "../builder/symbols.ts";
import { Host } from "../xen/host.ts";
import { LEAST_SHADOW_MEMORY } from "../xen/shadow.ts";
import { CPUID_OPTIONS, type CpuidOptions, parseCpuid } from "./views/cpuid.ts";
import { KERNEL_MAX, readFile } from "./files.ts";
import { GuestDomain, readSymbols } from "./domain.ts";
import { type ByteSource, Memory } from "./views/memory.ts";
import { CheckedFile, CpuFile } from "./register_file.ts";
import { type Registers, registersOf } from "./views/registers.ts";
import { hostHash, loadHost, saveHost } from "../xen/state.ts";
import { diffStates } from "../xen/state_diff.ts";
import { blocksOf, type StateBlocks, StateDiff } from "./views/state_view.ts";
import {
  flag,
  listOf,
  oneOf,
  options as optionsOf,
  outOfRange,
  pages,
  someText,
  text,
  textOrBytes,
  u16,
  type ValueCheck,
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
  timeText,
} from "./values.ts";
import type { CpuModel } from "../machine/vendors.ts";

/** What a host is started with. */
export interface StartOptions {
  /** Whose processor it has; "intel" if not given. */
  readonly cpu?: "intel" | "amd";
  /** Machine memory, at most 4 GiB; "512M" if not given. A bare domain brings its own. */
  readonly memory?: string | number;
  /** Seed of all chance the computer is given: the order of machine frames, say. */
  readonly seed?: number;
  /** Seconds since 1970 at machine time 0; 2026-01-01 if not given, so that runs repeat. */
  readonly unixTime?: number;
}

/** A module: a path or the bytes, and its command line. */
export interface ModuleOptions {
  /** A path, or the bytes. */
  readonly file: string | Uint8Array;
  /** What the guest finds as its command line; empty if not given. */
  readonly cmdline?: string;
}

/** What a domain is made from. */
export interface DomainOptions {
  /** Up to 255 characters, on one line; "guest1" and so on if not given. */
  readonly name?: string;
  /** On the processor itself, or in a hardware virtual machine; "hvm" if not given. */
  readonly type?: GuestType;
  /** A path, or the bytes: what each type boots, the README lists. */
  readonly kernel: string | Uint8Array;
  /** A path, or the bytes: an initramfs. */
  readonly ramdisk?: string | Uint8Array;
  /**
   * Further files for a multiboot image or a PVH kernel, in the order in which it sees them: for
   * Xen, domain 0's kernel with its command line, then domain 0's ramdisk.
   */
  readonly modules?: readonly ModuleOptions[];
  /** The kernel's command line; empty if not given. */
  readonly cmdline?: string;
  /** From 2 MiB to 3 GiB; "256M" if not given. */
  readonly memory?: string | number;
  /** Virtual processors: 1, the only number there is yet. */
  readonly vcpus?: number;
  /** Nested ("hap") or shadow paging. */
  readonly paging?: "hap" | "shadow";
  /** For shadow tables; if not given 1 MB, and 8 KB for each MB of the domain. */
  readonly shadowMemory?: string | number;
  /**
   * The processor the guest sees: a model's name, text as xl's `cpuid=` takes it
   * (`"host,rdrand=0"`), or a model with changes of features and leaves. The host's if not given;
   * "common" shows neither the vendor nor what depends on it.
   */
  readonly cpuid?: string | CpuidOptions;
  /** System.map or an ELF: a path or bytes. Beside a kernel `vmlinuz-X`, `System.map-X` is found. */
  readonly symbols?: string | Uint8Array;
  /** Further ports whose bytes are console text. */
  readonly consolePorts?: readonly number[];
  /** Bytes of console output that are kept, the last of it; "4M" if not given. */
  readonly consoleMemory?: string | number;
  /** Share of the processor beside other domains, 1 to 65535; 256 if not given. */
  readonly weight?: number;
  /** Most of the processor it gets, in percent; 0, no cap, if not given. */
  readonly cap?: number;
}

const vendor = oneOf("intel", "amd"), paging = oneOf("hap", "shadow");

/** @see StartOptions */
const START_OPTIONS = optionsOf({
  cpu: vendor,
  memory: pages(4096, MACHINE_MEMORY_MAX),
  seed: whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  unixTime: whole(0, 2 ** 40),
});
/** What {@linkcode Hypervisor.demo} takes besides. */
const DEMO_OPTIONS = { type: oneOf("bare", "hvm"), paging, cpuid: cpuidOptions };
/** A name stands in the prompt and in messages: it is short, and on one line. */
const domainName: ValueCheck<string> = (value, what) => {
  const name = someText(value, what);
  // deno-lint-ignore no-control-regex
  if (name.length <= 255 && !/[\x00-\x1f\x7f]/.test(name)) return name;
  throw outOfRange(what, "up to 255 characters, and no control characters,", value);
};
/** @see DomainOptions */
const DOMAIN_OPTIONS = optionsOf({
  name: domainName,
  type: oneOf(...GUEST_TYPES),
  kernel: textOrBytes,
  ramdisk: textOrBytes,
  modules: listOf(optionsOf({ file: textOrBytes, cmdline: text })),
  cmdline: text,
  memory: pages(GUEST_MEMORY.min, GUEST_MEMORY.max),
  vcpus: whole(GUEST_PROCESSORS.min, GUEST_PROCESSORS.max),
  paging,
  shadowMemory: pages(LEAST_SHADOW_MEMORY, MACHINE_MEMORY_MAX),
  cpuid: cpuidOptions,
  symbols: textOrBytes,
  consolePorts: listOf(u16),
  consoleMemory: pages(4096, 2 ** 30),
  weight: whole(1, 65535),
  cap: whole(0, 100),
});
const DEFAULT_TIME = 1_767_225_600;

/** A physical processor of the host. */
export class HostCpu {
  /** Number on the host. */
  readonly id = 0;
  /** Its registers: those of the vCPU that is on it, or the hypervisor's. */
  readonly regs: Registers;
  readonly #host: () => Host;
  /** @ignore `host` throws when it is closed. */
  constructor(host: () => Host) {
    this.#host = host;
    this.regs = registersOf(new CheckedFile(new CpuFile(host().machine.cpu), host));
  }
  /** Whose processor it is. */
  get model(): CpuModel {
    return this.#host().options.cpu;
  }
  /** Instructions retired. */
  get instructions(): number {
    return this.#host().machine.cpu.count;
  }
  /** Machine time in nanoseconds. */
  get time(): number {
    return this.#host().machine.cpu.now;
  }
  /** @ignore */
  [INSPECT](): string {
    try {
      this.#host();
    } catch (error) {
      return `processor ${this.id}: ${(error as Error).message}`;
    }
    return `processor ${this.id} (${this.model}), ${counted(this.instructions, "instruction")}, ` +
      `time ${timeText(this.time)}`;
  }
}

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
  readonly #options: { cpu: "intel" | "amd"; memory: number; seed: number; unixTime: number };
  #host: Host | undefined;
  #domains: GuestDomain[] = [];
  /** Why it cannot be used any longer. */
  #gone: string | undefined;

  private constructor(options: StartOptions) {
    const checked = START_OPTIONS(options, "Hypervisor.start");
    const { cpu = "intel", memory = 2 ** 29, seed = 1, unixTime = DEFAULT_TIME } = checked;
    this.#options = { cpu, memory, seed, unixTime };
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
    optionsOf(DEMO_OPTIONS)({ type, paging, cpuid }, "Hypervisor.demo");
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

  /** @ignore The host: made at the first need, because a bare domain brings its own memory. */
  get host(): Host {
    if (this.#gone !== undefined) throw new Error(this.#gone);
    return this.#host ??= this.#makeHost(this.#options.memory);
  }
  #makeHost(memory: number): Host {
    const host = new Host({ ...this.#options, memory });
    host.onError.add((error) => {
      for (const domain of this.#domains) domain.debugger_.fail(error);
    });
    return host;
  }

  /** The domains, in the order they were made. */
  get domains(): readonly GuestDomain[] {
    return this.#domains;
  }
  /** The host's processors. */
  get cpus(): readonly HostCpu[] {
    void this.host;
    return [new HostCpu(() => this.host)];
  }
  /** Machine memory: what the processor addresses without any translation. */
  get memory(): Memory {
    void this.host;
    return new Memory(new MachineSource(() => this.host, () => this.#gone));
  }
  /** Idle guests follow the clock on the wall, because somebody sits before them. */
  get interactive(): boolean {
    return this.#host?.interactive ?? false;
  }
  set interactive(on: boolean) {
    this.host.interactive = flag(on, "interactive");
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
    const config = this.#config(checked);
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

  #config(options: ReturnType<typeof DOMAIN_OPTIONS>): DomainConfig {
    const { type = "hvm", vcpus = 1, paging = "hap", memory = 2 ** 28 } = options;
    const asked = {
      name: options.name ?? this.#freeName(),
      type,
      cmdline: options.cmdline,
      memory,
      vcpus,
      paging,
      shadowMemory: options.shadowMemory,
      cpuid: options.cpuid,
      consolePorts: options.consolePorts,
      consoleMemory: options.consoleMemory,
      weight: options.weight,
      cap: options.cap,
    };
    planOf(asked);
    if (options.kernel === undefined) throw new TypeError("kernel: a path or bytes are needed");
    return {
      ...asked,
      kernel: file(options.kernel, "kernel", KERNEL_MAX),
      ramdisk: options.ramdisk === undefined ? undefined : file(options.ramdisk, "ramdisk", memory),
      modules: (options.modules ?? []).map((module) => bootModule(module, memory)),
    };
  }

  #build(config: DomainConfig): Promise<BuiltDomain> {
    // The machine is a bare guest's: it has just the guest's memory.
    const alone = planOf(config).alone && !this.#host?.domains.length;
    if (alone) this.#host = this.#makeHost(config.memory);
    return build(this.host, config);
  }

  /** A hash of the whole host's state, as 16 hexadecimal digits; equal states have equal hashes. */
  stateHash(): string {
    return hostHash(this.host);
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
    return saveHost(this.host);
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
    loadHost(this.host, state);
    // Those that wait for an interrupt go on waiting for it.
    const { host } = this;
    setImmediate(() => {
      if (host.domains.some((d) => d.state.kind === "blocked")) host.wake();
    });
  }
  /**
   * The state as it is now, but for the contents of memory: a copy of each block's record by its name,
   * `hv.blocks["domain 1 pit"]` say. It prints as a table of the blocks.
   */
  get blocks(): StateBlocks {
    return blocksOf(this.host.blocks);
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
      return new StateDiff(diffStates(a, saveHost(this.host)), ["before", "now"]);
    }
    return new StateDiff(diffStates(a, b), ["a", "b"]);
  }
  #mustStand(what: string): void {
    const { running } = this.host;
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
    const count = grouped(this.#host?.machine.cpu.count ?? 0);
    this.#gone ??= `this hypervisor is closed, since instruction ${count}; ` +
      "another is started by await Hypervisor.start()";
    this.#host = undefined;
    return Promise.resolve();
  }
  /** Closes it, at the end of an `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    if (this.#gone !== undefined) return this.#gone;
    const { cpu, memory } = this.#host?.options ?? this.#options;
    const rows = this.#domains.map((d) => `  ${d.id}  ${d.name}  ${d.type}  ${d.state}`);
    const dropped = this.#host?.world.dropped ?? 0;
    return [
      bold(`hypervisor on a simulated ${cpu} host with ${sizeText(memory)}`, options),
      ...(rows.length ? rows : ["  no domains: await hv.createDomain({ name, type, kernel, … })"]),
      ...(dropped
        ? [`  of what came from outside, ${counted(dropped, "entry", "entries")} not kept`]
        : []),
      "  createDomain(options) domains cpus memory stateHash() save() load(state) diff(state) close()",
    ].join("\n");
  }
}

function cpuidOptions(given: unknown, what: string): CpuidOptions | undefined {
  if (typeof given === "string") return parseCpuid(given);
  if (given === undefined) return undefined;
  if (typeof given !== "object" || given === null) {
    throw wrongType(what, "a model, text or { model, features, leaves }", given);
  }
  return CPUID_OPTIONS(given, what) as CpuidOptions;
}

function bootModule({ file: given, cmdline }: Partial<ModuleOptions>, most: number): BootModule {
  if (given === undefined) throw new TypeError("modules: each needs a file, a path or bytes");
  return { ...file(given, "module", most), cmdline };
}

/** The bytes; of a file, when there are at most `most`. */
function file(given: string | Uint8Array, what: string, most: number): NamedBytes {
  if (given instanceof Uint8Array) return { file: what, bytes: given };
  return { file: given, bytes: readFile(what, given, most) };
}

/** Symbols as asked for, or those that lie beside the kernel under their usual name. */
function findSymbols(
  { kernel, symbols }: Pick<Partial<DomainOptions>, "kernel" | "symbols">,
): SymbolTable | undefined {
  if (symbols !== undefined) return readSymbols(symbols);
  if (typeof kernel !== "string") return undefined;
  const match = basename(kernel).match(/^vmlinu[xz]-(.+)$/);
  if (!match) return undefined;
  try {
    return readSymbols(join(dirname(kernel), `System.map-${match[1]}`));
  } catch {
    return undefined;
  }
}

/** Machine memory. */
class MachineSource implements ByteSource {
  readonly kind = "machine";
  constructor(
    private readonly host: () => Host,
    private readonly whyGone: () => string | undefined,
  ) {}
  get gone(): string | undefined {
    return this.whyGone();
  }
  get size(): number | undefined {
    return this.gone === undefined ? this.host().machine.size : undefined;
  }
  read(address: bigint, length: number): Uint8Array {
    const { ram, size } = this.host().machine;
    if (address >= BigInt(size)) {
      throw new RangeError(`machine address ${hex(address)}: memory ends at ${hex(size)}`);
    }
    return ram.slice(Number(address), Math.min(Number(address) + length, size));
  }
  write(address: bigint, bytes: Uint8Array): void {
    const { world, machine } = this.host();
    world.enter("write", 0, { machine: Number(address), bytes });
    machine.write(Number(address), bytes);
  }
}
