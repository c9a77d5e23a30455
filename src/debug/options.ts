/**
 * What a host and a domain are made from: the options, their checks, and the builder's configuration
 * that they come to.
 *
 * @module
 */
import { GUEST_TYPES, type GuestType } from "../abi/boot/images.ts";
import { GUEST_MEMORY, GUEST_PROCESSORS, MACHINE_MEMORY_MAX } from "../abi/limits.ts";
import { type DomainConfig, planOf } from "../builder/domain.ts";
import type { BootModule, NamedBytes } from "../builder/load.ts";
import { PROCESSORS } from "../machine/state.ts";
import { type Interleave, LONGEST_TURN } from "../xen/scheduler.ts";
import { LEAST_SHADOW_MEMORY } from "../xen/shadow.ts";
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
import { KERNEL_MAX, readFile } from "./files.ts";
import { CPUID_OPTIONS, type CpuidOptions, parseCpuid } from "./views/cpuid.ts";

/** What a host is started with. */
export interface StartOptions {
  /** Whose processor it has; "intel" if not given. */
  readonly cpu?: "intel" | "amd";
  /** Machine memory, at most 4 GiB; "512M" if not given. A bare domain brings its own. */
  readonly memory?: string | number;
  /** Processors, 1 to 8; one if not given, or as many as a bare domain has vCPUs. */
  readonly cpus?: number;
  /**
   * How many instructions vCPUs of one domain, and processors, run in turn: the seed picks lengths from
   * `min` to `max`, 1 to 1,000,000; `{ min: 2000, max: 10000 }` if not given. Short turns find more of
   * what can come between two instructions, and cost more.
   */
  readonly interleave?: { readonly min: number; readonly max: number };
  /** Seed of all chance the computer is given: the order of machine frames, and the lengths of turns. */
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
  /** Virtual processors, 1 to 16; 1 if not given. A bare domain's are the host's processors: 1 to 8. */
  readonly vcpus?: number;
  /** Nested ("hap") or shadow paging. */
  readonly paging?: "hap" | "shadow";
  /**
   * It knows on whom it runs: Xen's CPUID leaves, hypercalls, event channels and the rest of that
   * interface. True for type "pvh" and false for others, if not given.
   */
  readonly xen?: boolean;
  /** From `memory` on: up to what one that knows Xen may grow by itself; `memory` if not given. */
  readonly maxMemory?: string | number;
  /**
   * It may write to the hypervisor's own console (`hv.log`), as a debug build of Xen lets all domains.
   * False if not given: a release build, as distributions have it, refuses that (EPERM).
   */
  readonly xenConsole?: boolean;
  /**
   * Whose time it has. "own", if not given: with one vCPU its time stands while other domains run or it
   * is paused. "host": its time is the machine's, always: to wait for a processor takes time, which the
   * guest sees as stolen. One whose event channel is bound to another domain's is on the host's time
   * from then on, and its own goes on from where it was. A bare guest's is the machine's.
   */
  readonly clock?: "own" | "host";
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
  /**
   * Most that its vCPUs get together, in percent of one processor: 200 is two of them. 0, no cap, if not
   * given.
   */
  readonly cap?: number;
}

const seeds = whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
const LENGTHS = { min: whole(1, LONGEST_TURN), max: whole(1, LONGEST_TURN) };

/** Lengths of turns, both of them in their order. */
function checkLengths(
  { min, max }: { readonly min?: number; readonly max?: number },
  what: string,
  value: unknown,
): Interleave {
  if (min === undefined || max === undefined) {
    throw wrongType(what, "{ min, max }, both of them,", value);
  }
  if (min <= max) return { min, max };
  throw new RangeError(
    `${what}: min up to max was expected, { min: ${min}, max: ${max} } was given`,
  );
}
const lengths: ValueCheck<Interleave> = (value, what) =>
  checkLengths(optionsOf(LENGTHS)(value, what), what, value);
/** Lengths of turns, and perhaps the seed that picks them from there on. */
export const toInterleave: ValueCheck<{ lengths: Interleave; seed?: number }> = (value, what) => {
  const { seed, ...given } = optionsOf({ ...LENGTHS, seed: seeds })(value, what);
  return { lengths: checkLengths(given, what, value), seed };
};

const vendor = oneOf("intel", "amd"), paging = oneOf("hap", "shadow");

/** @see StartOptions */
export const START_OPTIONS = optionsOf({
  cpu: vendor,
  memory: pages(4096, MACHINE_MEMORY_MAX),
  cpus: whole(1, PROCESSORS),
  interleave: lengths,
  seed: seeds,
  unixTime: whole(0, 2 ** 40),
});
/** What `Hypervisor.demo` takes besides. */
export const DEMO_OPTIONS = optionsOf({ type: oneOf("bare", "hvm"), paging, cpuid: cpuidOptions });
/** A name stands in the prompt and in messages: it is short, and on one line. */
const domainName: ValueCheck<string> = (value, what) => {
  const name = someText(value, what);
  // deno-lint-ignore no-control-regex
  if (name.length <= 255 && !/[\x00-\x1f\x7f]/.test(name)) return name;
  throw outOfRange(what, "up to 255 characters, and no control characters,", value);
};
/** @see DomainOptions */
export const DOMAIN_OPTIONS = optionsOf({
  name: domainName,
  type: oneOf(...GUEST_TYPES),
  kernel: textOrBytes,
  ramdisk: textOrBytes,
  modules: listOf(optionsOf({ file: textOrBytes, cmdline: text })),
  cmdline: text,
  memory: pages(GUEST_MEMORY.min, GUEST_MEMORY.max),
  vcpus: whole(GUEST_PROCESSORS.min, GUEST_PROCESSORS.max),
  paging,
  xen: flag,
  maxMemory: pages(GUEST_MEMORY.min, GUEST_MEMORY.max),
  xenConsole: flag,
  clock: oneOf("own", "host"),
  shadowMemory: pages(LEAST_SHADOW_MEMORY, MACHINE_MEMORY_MAX),
  cpuid: cpuidOptions,
  symbols: textOrBytes,
  consolePorts: listOf(u16),
  consoleMemory: pages(4096, 2 ** 30),
  weight: whole(1, 65535),
  cap: whole(0, 100 * GUEST_PROCESSORS.max),
});

/** What the builder is given. Files are read. */
export function configOf(
  options: ReturnType<typeof DOMAIN_OPTIONS>,
  freeName: () => string,
): DomainConfig {
  const { type = "hvm", vcpus = 1, paging = "hap", memory = 2 ** 28 } = options;
  const { xen = type === "pvh" } = options;
  const asked = {
    name: options.name ?? freeName(),
    type,
    cmdline: options.cmdline,
    memory,
    vcpus,
    paging,
    xen,
    maxMemory: options.maxMemory,
    xenConsole: options.xenConsole,
    clock: options.clock,
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
