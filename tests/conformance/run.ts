/** Runs one image in a domain of its own until it ends, and says what it did. */
import { build, type BuiltDomain, type DomainConfig } from "../../src/builder/domain.ts";
import type { CpuidModel } from "../../src/machine/cpuid.ts";
import { checkById, explain } from "../../src/machine/checks.ts";
import { Domain0 } from "../../src/dom0/domain0.ts";
import type { Domain, DomainState } from "../../src/xen/domain.ts";
import { Host } from "../../src/xen/host.ts";
import type { Interleave } from "../../src/xen/scheduler.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

/** How an image is run. */
export interface RunOptions {
  /** Path of the image. */
  readonly image: string;
  readonly ramdisk?: string;
  /** Text of a ramdisk, in place of a file of it: kvm-unit-tests take their environment from there. */
  readonly environment?: string;
  /** Paths of modules, and their command lines. */
  readonly modules?: readonly { readonly file: string; readonly cmdline?: string }[];
  readonly cmdline?: string;
  readonly type?: "bare" | "hvm" | "pvh";
  /** Whose processor; "intel" if not given. */
  readonly cpu?: CpuModel;
  readonly paging?: "hap" | "shadow";
  /** Model of the processor the guest sees; the host's if not given. */
  readonly cpuid?: CpuidModel;
  /** CPUID features on or off, by name. */
  readonly features?: Readonly<Record<string, boolean>>;
  /** Bytes of the domain. */
  readonly memory?: number;
  /** Virtual processors: 1 if not given. */
  readonly vcpus?: number;
  /** Processors of the host: 1, or for a bare machine as many as `vcpus`, if not given. */
  readonly cpus?: number;
  /** How long vCPUs run in turn; the host's own if not given. */
  readonly interleave?: Interleave;
  /** It knows Xen, and domain 0 serves its console and xenstore. */
  readonly xen?: boolean;
  /** Instructions after which it is given up. */
  readonly limit: number;
  /** Done as soon as the console shows this. */
  readonly until?: string;
  /** A look at the domain before it runs. */
  readonly prepare?: (built: BuiltDomain, host: Host) => void;
}

/** What an image did. */
export interface Outcome {
  /** Everything it wrote to its console. */
  readonly text: string;
  /** Codes written to the POST ports, the last one last. */
  readonly posts: readonly number[];
  /** How it ended: "exit (status 1)", "limit", "until", ... */
  readonly end: string;
  readonly instructions: number;
  /** Exits by kind; empty for a bare machine. */
  readonly exits: Readonly<Record<string, number>>;
  /** The last exception, in the words of the check that raised it. */
  readonly lastFault: string;
}

/** Unix time of the guests' clocks: any fixed moment will do. */
const UNIX_TIME = 1_700_000_000;
/** Bytes of a host beside its domain: tables and control structures. */
const HOST_MEMORY = 64 << 20;

/** Runs an image to its end, its text or its limit. */
export async function run(options: RunOptions): Promise<Outcome> {
  const memory = options.memory ?? 128 << 20;
  const { host, built } = await make(options, memory);
  const { domain } = built;
  let text = "", found = false;
  domain.onOutput.add((bytes) => {
    text += String.fromCharCode(...bytes);
    if (options.until && !found && text.slice(-200).includes(options.until)) {
      found = true;
      domain.pause();
    }
  });
  options.prepare?.(built, host);
  const state = await finished(host, domain, options.limit);
  const end = state.kind === "shutdown"
    ? `${state.reason} (${state.detail})`
    : found
    ? "until"
    : "limit";
  const { posts, count: instructions, exits } = domain;
  return { text, posts, end, instructions, exits, lastFault: fault(host) };
}

async function make(options: RunOptions, memory: number) {
  const { type = "bare", cmdline, image, ramdisk, cpu = "intel", paging = "hap", environment } =
    options;
  const modules = options.modules ?? [];
  const file = (path: string) => ({ file: path, bytes: Deno.readFileSync(path) });
  const config: DomainConfig = {
    name: "test",
    type,
    kernel: file(image),
    ramdisk: environment !== undefined
      ? { file: "environment", bytes: new TextEncoder().encode(environment) }
      : ramdisk === undefined
      ? undefined
      : file(ramdisk),
    modules: modules.map((module) => ({ ...file(module.file), cmdline: module.cmdline })),
    cmdline,
    memory,
    vcpus: options.vcpus ?? 1,
    paging,
    cpuid: { model: options.cpuid, features: options.features },
    xen: options.xen,
  };
  const size = type === "bare" ? memory : memory + HOST_MEMORY;
  const { cpus = type === "bare" ? config.vcpus : 1, interleave } = options;
  const host = new Host({ cpu, memory: size, unixTime: UNIX_TIME, seed: 1, cpus, interleave });
  const built = await build(host, config);
  if (options.xen) new Domain0(host).introduce(built.domain);
  return { host, built };
}

/** Lets the domain run; resolves when it stands still for good. */
function finished(host: Host, domain: Domain, limit: number): Promise<DomainState> {
  return new Promise((resolve, reject) => {
    host.onError.add(reject);
    domain.onState.add((state) => {
      // After an error of ours the domain is paused first and the error told next.
      if (state.kind !== "running" && state.kind !== "blocked") setTimeout(() => resolve(state));
    });
    host.interrupted = () => domain.count >= limit;
    domain.unpause();
  });
}

function fault(host: Host): string {
  const f = host.machine.cpu.lastFault;
  if (!f) return "none";
  const code = f.errorCode === undefined ? "" : `, error code 0x${f.errorCode.toString(16)}`;
  return `vector ${f.vector}${code} at rip 0x${f.rip.toString(16)}, instruction ${f.count}: ` +
    `${checkById(f.check).name}: ${explain(f.check, f.a, f.b)}`;
}

/** The folder of suite images, or undefined: then the tests say that they are skipped. */
export function suiteImages(): string | undefined {
  const folder = Deno.env.get("XVM_SUITES");
  if (folder === undefined) return undefined;
  try {
    if (Deno.statSync(folder).isDirectory) return folder;
  } catch { /* said below */ }
  throw new Error(`XVM_SUITES: a folder of suite images was expected, "${folder}" is none`);
}

/** Where suites run: a type of domain, a processor, a kind of paging. */
export interface Place {
  readonly name: string;
  readonly type: "bare" | "hvm";
  readonly cpu: CpuModel;
  readonly paging: "hap" | "shadow";
}
/** The places that XVM_SUITES_ON names: "hvm/amd/shadow,bare/amd". */
export const placesOf = (): Place[] =>
  (Deno.env.get("XVM_SUITES_ON") ?? "bare/intel/hap,hvm/intel/hap").split(",")
    .map((text) => {
      const [type, cpu = "intel", paging = "hap"] = text.split("/");
      return { name: text, type, cpu, paging } as Place;
    });

export function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
