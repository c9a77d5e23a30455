/**
 * Domain configurations: the keys of xl.cfg, and typed .ts files.
 *
 * @module
 */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { GUEST_TYPES } from "../src/abi/boot/images.ts";
import { GUEST_MEMORY, GUEST_PROCESSORS, HOST_PROCESSORS_MAX } from "../src/abi/limits.ts";
import { brief } from "../src/builder/errors.ts";
import { pages, toSize } from "../src/debug/check.ts";
import { readFile, TEXT_MAX } from "../src/debug/files.ts";
import { parseXl, type XlEntry, type XlValue } from "./xl_syntax.ts";

/** What is done with a domain that ended. */
export type Action = "destroy" | "restart" | "preserve";
/** How a domain can end, as far as an action can be chosen for it. */
export type Event = "poweroff" | "reboot" | "crash" | "watchdog";

/** A domain as a file describes it. */
export interface DomainFile {
  /** What `createDomain` takes. */
  readonly options: Record<string, unknown> & { name?: string; kernel?: unknown };
  /** What the simulated host is to be; xl.cfg has no such keys, so they are ours. */
  readonly host: { cpu?: "intel" | "amd"; seed?: number; cpus?: number };
  readonly actions: Readonly<Record<Event, Action>>;
  /** What was passed over, and why. */
  readonly warnings: readonly string[];
}

/** xl's own: a guest that powers off is gone, one that resets comes again. */
const ACTIONS: Readonly<Record<Event, Action>> = {
  poweroff: "destroy",
  reboot: "restart",
  crash: "destroy",
  watchdog: "destroy",
};

/**
 * Reads a configuration: a .ts module's default export (or what it returns), else xl.cfg syntax.
 *
 * A module exports what `createDomain` takes, and may export `host`, what `Hypervisor.start` takes:
 *
 * ```ts ignore
 * import type { DomainOptions } from "xvm";
 * export default { name: "debian", kernel: "vmlinuz", memory: "256M" } satisfies DomainOptions;
 * ```
 *
 * @throws {Error} with the file, the line where there is one, and what was expected
 */
export async function readDomainFile(path: string): Promise<DomainFile> {
  if (/\.[mc]?[jt]s$/.test(path)) return await fromModule(path);
  const bytes = readFile("configuration", path, TEXT_MAX);
  return fromXl(parseXl(new TextDecoder().decode(bytes), path), path);
}

async function fromModule(path: string): Promise<DomainFile> {
  const module = await import(pathToFileURL(resolve(path)).href);
  const exported = module.default;
  const options = typeof exported === "function" ? await exported() : exported;
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new TypeError(
      `${path}: the default export has to be a configuration, an object or a function that gives ` +
        `one; it is ${
          Array.isArray(options) ? "a list" : options === null ? "null" : typeof options
        }`,
    );
  }
  const host = module.host ?? {};
  return { options: { ...options }, host: { ...host }, actions: ACTIONS, warnings: [] };
}

/** One key's reading: what is wrong is said with its line. */
class Key {
  constructor(readonly entry: XlEntry, readonly path: string) {}

  fail(what: string): never {
    const { key, line } = this.entry;
    throw new RangeError(`${this.path}:${line}: ${brief(key)}: ${what}`);
  }
  expected(what: string): never {
    return this.fail(`expected ${what}, got ${shown(this.entry.value)}`);
  }
  get text(): string {
    const { value } = this.entry;
    return typeof value === "string" ? value : this.expected("a string in quotes");
  }
  /** xl takes numbers in quotes too. */
  number(what: string, min: number, max: number): number {
    const { value } = this.entry;
    const number = typeof value === "string" && /^(0x[0-9a-f]+|\d+)$/i.test(value)
      ? Number(value)
      : value;
    if (typeof number !== "number" || !(number >= min && number <= max)) {
      return this.expected(`${what} from ${min} to ${max}`);
    }
    return number;
  }
  get flag(): boolean {
    const { value } = this.entry;
    if (value === 0 || value === "0") return false;
    if (value === 1 || value === "1") return true;
    return this.expected("0 or 1");
  }
  one<T extends string>(choices: readonly T[]): T {
    const { value } = this.entry;
    const found = choices.find((it) => it === value);
    return found ?? this.expected(`one of ${choices.map((it) => `"${it}"`).join(", ")}`);
  }
}

const shown = (value: XlValue): string => brief(JSON.stringify(value));

/** What a file comes to while it is read. */
interface Reading {
  readonly options: Record<string, unknown>;
  readonly host: { cpu?: "intel" | "amd"; seed?: number; cpus?: number };
  readonly actions: Record<Event, Action>;
  root?: string;
  extra?: string;
}

const MIB = 2 ** 20;
const TYPES = { hvm: "hvm", pvh: "pvh", pv: "pv", bare: "bare", generic: "pv" } as const;

function action(event: Event) {
  return (key: Key, r: Reading): void => {
    const { value } = key.entry;
    const later = ["rename-restart", "coredump-destroy", "coredump-restart", "soft-reset"];
    if (later.includes(value as string)) key.fail(`"${value}" is not available yet`);
    r.actions[event] = key.one(["destroy", "restart", "preserve"] as const);
  };
}

const memoryMiB = (key: Key) => key.number("MiB", GUEST_MEMORY.min / MIB, GUEST_MEMORY.max / MIB);
const processors = (key: Key) =>
  key.number("processors", GUEST_PROCESSORS.min, GUEST_PROCESSORS.max);

/** The keys that apply here. */
const KEYS: Readonly<Record<string, (key: Key, r: Reading) => void>> = {
  name: (key, r) => r.options.name = key.text,
  type: (key, r) => r.options.type = key.one(GUEST_TYPES),
  builder: (key, r) => r.options.type = TYPES[key.one(["hvm", "generic"])],
  kernel: (key, r) => r.options.kernel = key.text,
  ramdisk: (key, r) => r.options.ramdisk = key.text,
  cmdline: (key, r) => r.options.cmdline = key.text,
  root: (key, r) => r.root = key.text,
  extra: (key, r) => r.extra = key.text,
  memory: (key, r) => r.options.memory = memoryMiB(key) * MIB,
  maxmem: (key) => void memoryMiB(key),
  vcpus: (key, r) => r.options.vcpus = processors(key),
  maxvcpus: (key) => void processors(key),
  cpu_weight: (key, r) => r.options.weight = key.number("a weight", 1, 65535),
  cap: (key, r) =>
    r.options.cap = key.number("percent of a processor", 0, 100 * GUEST_PROCESSORS.max),
  cpus: (key) => {
    const { value } = key.entry;
    if (value !== "all" && value !== "0" && value !== 0) key.expected(`"all" or "0"`);
  },
  hap: (key, r) => r.options.paging = key.flag ? "hap" : "shadow",
  shadow_memory: (key, r) => r.options.shadowMemory = key.number("MiB", 1, 1024) * MIB,
  on_poweroff: action("poweroff"),
  on_reboot: action("reboot"),
  on_crash: action("crash"),
  on_watchdog: action("watchdog"),
  serial: (key) => {
    // The guest's first serial port is its console, on the terminal.
    if (Array.isArray(key.entry.value)) key.fail("one serial port is there, not a list of them");
    key.one(["pty", "stdio", "mon:stdio"]);
  },
  cpuid: (key, r) => {
    const { value } = key.entry;
    if (Array.isArray(value)) {
      key.fail(
        `the list of 32-digit strings is not read; write "host,FEATURE=0,…", or ` +
          `"LEAF.REGISTER=VALUE" in it`,
      );
    }
    r.options.cpuid = key.text;
  },
  symbols: (key, r) => r.options.symbols = key.text,
  xen: (key, r) => r.options.xen = key.flag,
  clock: (key, r) => r.options.clock = key.one(["own", "host"] as const),
  cpu: (key, r) => r.host.cpu = key.one(["intel", "amd"] as const),
  processors: (key, r) => r.host.cpus = key.number("processors", 1, HOST_PROCESSORS_MAX),
  seed: (key, r) => r.host.seed = key.number("a seed", 0, 2 ** 32 - 1),
};
/** Keys that xl.cfg does not have. */
const OURS = ["symbols", "xen", "clock", "cpu", "processors", "seed"];

/** Keys of which one value is what is here anyway. */
const FIXED: Readonly<Record<string, readonly [value: XlValue, why: string]>> = {
  acpi: [1, "the motherboard has its ACPI tables"],
  apic: [1, "the motherboard has its APIC; a guest can be kept from it by cpuid"],
  pae: [1, "the processor has PAE; a guest can be kept from it by cpuid"],
  nx: [1, "the processor has NX; a guest can be kept from it by cpuid"],
  hpet: [0, "the motherboard has no HPET"],
  nestedhvm: [0, "nested virtualization is not available yet"],
  viridian: [0, "Hyper-V's interfaces are not available"],
  xen_platform_pci: [0, "Xen's platform device is not available yet"],
  vnc: [0, "the screen is text: dom.screen at the prompt"],
  sdl: [0, "the screen is text: dom.screen at the prompt"],
  spice: [0, "the screen is text: dom.screen at the prompt"],
  nographic: [1, "the screen is text: dom.screen at the prompt"],
  usb: [0, "there is no USB"],
  localtime: [0, "the clock is UTC"],
  rtc_timeoffset: [0, "the clock is the host's unixTime"],
  tsc_mode: ["default", "the time-stamp counter counts the nanoseconds of the guest's time"],
};

const DEVICE = "device models are part of the simulated motherboard";
const FIRMWARE = "no firmware is there: kernel= is entered directly";
const PASS = "no device of a real machine can be passed through";
const SCREEN = "the screen is text: dom.screen at the prompt";
const POLICY = "the host has one pool of processors and one policy";
const PV = "paravirtual devices are not available yet";
/** Keys of xl.cfg that do not apply, and why. An empty list asks for nothing and may stand. */
const REFUSED: Readonly<Record<string, string>> = {
  disk: "no block device is there yet: put what the guest needs into its ramdisk",
  vif: "no network is there yet",
  ...Object.fromEntries(
    [
      ["firmware firmware_override boot bootloader bootloader_args bios smbios_firmware", FIRMWARE],
      ["acpi_firmware ms_vm_genid loader nvram", FIRMWARE],
      [
        "device_model_version device_model_override device_model_args device_model_args_hvm",
        DEVICE,
      ],
      ["device_model_args_pv device_model_user device_model_stubdomain_override", DEVICE],
      ["device_model_stubdomain_seclabel stubdomain_memory stubdomain_kernel soundhw", DEVICE],
      ["stubdomain_ramdisk stubdomain_cmdline parallel vga videoram stdvga usbdevice", DEVICE],
      ["usbversion vendor_device keymap", DEVICE],
      ["pci pci_permissive pci_msitranslate pci_power_mgmt pci_seize gfx_passthru rdm", PASS],
      ["rdm_mem_boundary usbctrl usbdev ioports iomem irqs passthrough dtdev device_tree", PASS],
      ["vfb vkb vnclisten vncdisplay vncunused vncpasswd opengl display vdispl vsnd", SCREEN],
      ["spicehost spiceport spicetls_port spicedisable_ticketing spicepasswd", SCREEN],
      ["spiceagent_mouse spicevdagent spice_clipboard_sharing spiceusbredirection", SCREEN],
      ["vtpm p9 pvcalls channel vuart virtio", PV],
      ["pool cpus_soft vnuma seclabel init_seclabel max_grant_frames", POLICY],
      ["max_maptrack_frames max_grant_version driver_domain vmtrace_buf_kb", POLICY],
      ["uuid", "a domain is known by its id and name"],
      ["timer_mode", "timers keep the guest's time (clock)"],
      ["on_soft_reset", "no soft reset is there yet"],
      ["altp2m mca_caps vpmu nomigrate suppress_spurious_page_faults", "not available"],
      ["e820_host features blkdev_start pvh pvshim pvshim_path pvshim_cmdline pvshim_extra", PV],
      ["mmio_hole msr_relaxed trap_unmapped_accesses", "not available"],
    ].flatMap(([keys, why]) => keys.split(" ").map((key) => [key, why])),
  ),
};

/** Reads one key, or says why it cannot. */
function readKey(key: Key, reading: Reading): void {
  const { key: name, value } = key.entry;
  const reader = Object.hasOwn(KEYS, name) ? KEYS[name] : undefined;
  if (reader) return reader(key, reading);
  if (Object.hasOwn(FIXED, name)) {
    const [only, why] = FIXED[name];
    if (value === only || value === String(only)) return;
    return key.fail(`${shown(only)} is the one value available, got ${shown(value)}: ${why}`);
  }
  if (Object.hasOwn(REFUSED, name)) {
    if (Array.isArray(value) && value.length === 0) return;
    return key.fail(`cannot be given: ${REFUSED[name]}`);
  }
  const known = Object.keys(KEYS);
  const near = known.find((it) => distance(it, name) <= 2);
  key.fail(
    `xl.cfg has no such key${
      near ? `; did you mean ${near}?` : `; there are: ${known.join(", ")}`
    }`,
  );
}

/** How many letters have to change, at most 3. */
function distance(a: string, b: string): number {
  if (a === b) return 0;
  if (!a || !b || Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, n) => n);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + same);
    }
    row = next;
  }
  return Math.min(3, row[b.length]);
}

function fromXl(entries: Record<string, XlEntry>, path: string): DomainFile {
  const reading: Reading = { options: {}, host: {}, actions: { ...ACTIONS } };
  const warnings: string[] = [];
  const all = Object.values(entries);
  for (const entry of all) readKey(new Key(entry, path), reading);
  const { options } = reading;
  const keeps = (key: string, like: string, is: number) => {
    const entry = entries[key];
    if (!entry || Number(entry.value) === is) return;
    new Key(entry, path).fail(
      `a domain keeps what it starts with: expected ${like}'s ${is}, got ${shown(entry.value)}`,
    );
  };
  // Alone, maxmem is the memory there is.
  if (entries.maxmem && !entries.memory) options.memory = Number(entries.maxmem.value) * MIB;
  const most = Number(entries.maxmem?.value) * MIB,
    knowsXen = options.xen ?? options.type === "pvh";
  // One that knows Xen may grow by itself.
  if (knowsXen && most > Number(options.memory)) options.maxMemory = most;
  else keeps("maxmem", "memory", Number(options.memory) / MIB);
  keeps("maxvcpus", "vcpus", Number(options.vcpus ?? 1));
  if (options.paging !== "shadow" && entries.shadow_memory) {
    new Key(entries.shadow_memory, path).fail("shadow paging has a pool: say hap = 0 too");
  }
  const { root, extra } = reading;
  if (options.cmdline === undefined) {
    const words = [root && `root=${root}`, extra].filter((it) => it);
    if (words.length) options.cmdline = words.join(" ");
  } else if (root ?? extra) {
    const line = (entries.root ?? entries.extra).line;
    warnings.push(`${path}:${line}: root and extra are passed over, because cmdline is given`);
  }
  if (options.kernel === undefined) {
    throw new RangeError(`${path}: names no kernel: expected kernel = "FILE"`);
  }
  return { options, host: reading.host, actions: reading.actions, warnings };
}

/** The keys that can be given, for help. */
export const xlKeys: readonly string[] = Object.keys(KEYS);
/** Those that are ours. */
export const ownKeys: readonly string[] = OURS;

/** Bytes of a domain's memory, 256 MB if it names none, and of its shadow tables. */
export function memoryOf(
  { options }: DomainFile,
): { readonly memory: number; readonly shadowMemory?: number } {
  const { memory = "256M", shadowMemory } = options;
  return {
    memory: pages(GUEST_MEMORY.min, GUEST_MEMORY.max)(memory, "memory"),
    shadowMemory: shadowMemory === undefined ? undefined : toSize(shadowMemory, "shadowMemory"),
  };
}
