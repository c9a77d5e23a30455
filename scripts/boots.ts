/**
 * The boots of real kernels that the tests of them share: which there are, and a process for each.
 *
 * @module
 */
import { gzipSync } from "node:zlib";
import { type DomainOptions, Hypervisor, type StartOptions } from "xvm";
import type { GuestDomain } from "../src/debug/domain.ts";
import { writeCpio } from "../repl/guests/cpio.ts";
import { guestsFolder } from "../repl/guests/images.ts";

const CMDLINE = "console=ttyS0 nokaslr mitigations=off cryptomgr.notests noisapnp quiet";
const MEMORY = 256;
/** What the last line of the initramfs begins with. */
export const DONE = "GUEST-DONE";

/** A guest and how it is entered. */
export interface Kernel {
  readonly name: string;
  readonly file: string;
  readonly bits: 32 | 64;
  readonly type: "hvm" | "pvh" | "bare";
  /** It knows Xen; not, if not given. */
  readonly xen?: true;
}
const RAMDISKS = { 32: "tiny-i386", 64: "tiny-amd64" } as const;
export const KERNELS: readonly Kernel[] = [
  { name: "686 bzImage", file: "vmlinuz-686", bits: 32, type: "hvm" },
  { name: "686-pae PVH", file: "vmlinux-686-pae", bits: 32, type: "pvh" },
  { name: "cloud PVH", file: "vmlinux-cloud", bits: 64, type: "pvh" },
  { name: "cloud bzImage", file: "vmlinuz-cloud", bits: 64, type: "hvm" },
  { name: "amd64 PVH", file: "vmlinux-amd64", bits: 64, type: "pvh" },
  { name: "cloud bare", file: "vmlinux-cloud", bits: 64, type: "bare" },
  { name: "686-pae Xen", file: "vmlinux-686-pae", bits: 32, type: "pvh", xen: true },
  { name: "cloud Xen", file: "vmlinux-cloud", bits: 64, type: "pvh", xen: true },
];
/** Beside them, with several vCPUs. */
export const SEVERAL: readonly Kernel[] = [
  { name: "686-pae bare", file: "vmlinux-686-pae", bits: 32, type: "bare" },
  { name: "amd64 bare", file: "vmlinux-amd64", bits: 64, type: "bare" },
  { name: "686-pae bzImage", file: "vmlinuz-686-pae", bits: 32, type: "hvm" },
  { name: "amd64 bzImage", file: "vmlinuz-amd64", bits: 64, type: "hvm" },
];
const ALL = [...KERNELS, ...SEVERAL];

/** One boot. */
export interface Boot {
  readonly kernel: Kernel;
  readonly cpu: "intel" | "amd";
  readonly paging: "hap" | "shadow";
  /** vCPUs, whose number the guest then says; one, and nothing said, if not given. */
  readonly vcpus?: number;
  /** Processors of the host; 1, or for a bare guest as many as it has, if not given. */
  readonly cpus?: number;
}

export const nameOf = ({ kernel, cpu, paging, vcpus, cpus }: Boot): string =>
  [
    kernel.name,
    cpu,
    ...(kernel.type === "bare" ? [] : [paging]),
    ...(vcpus === undefined ? [] : [`${vcpus} vCPU${vcpus === 1 ? "" : "s"}`]),
    ...(cpus === undefined ? [] : [`on ${cpus}`]),
  ].join(" ");

/**
 * The boots that words choose: vendors, kinds of paging, names of kernels or parts of them.
 *
 * @param kernelsThere kernels to choose from
 */
export function chosen(words: readonly string[], kernelsThere = KERNELS): Boot[] {
  const of = <T extends string>(all: readonly T[]) => {
    const named = all.filter((it) => words.includes(it));
    return named.length ? named : all;
  };
  const cpus = of(["intel", "amd"] as const), pagings = of(["hap", "shadow"] as const);
  const names = words.filter((w) => !["intel", "amd", "hap", "shadow"].includes(w));
  const kernels = kernelsThere.filter((k) =>
    names.length === 0 || names.some((name) => k.name === name || k.name.split(" ").includes(name))
  );
  return kernels.flatMap((kernel) =>
    cpus.flatMap((cpu) =>
      kernel.type === "bare"
        ? [{ kernel, cpu, paging: "hap" as const }]
        : pagings.map((paging) => ({ kernel, cpu, paging }))
    )
  );
}

/** What can be chosen, for a message. */
export const CHOICES: string = `intel, amd, hap, shadow, and: ${ALL.map((k) => k.name).join(", ")}`;

/** The files of a boot. */
export function filesOf(
  { kernel }: Pick<Boot, "kernel">,
): { readonly kernel: string; readonly ramdisk: string } {
  const folder = guestsFolder();
  return {
    kernel: `${folder}/${kernel.file}`,
    ramdisk: `${folder}/${RAMDISKS[kernel.bits]}.cpio.gz`,
  };
}

/** What a guest's processors are known by on its console, before anything else that is the initramfs's. */
export const NPROC = "NPROC ";
const SAY_PROCESSORS = `echo "${NPROC}$(/bin/busybox nproc)"\nexec /init\n`;
/** With an archive behind the initramfs's, lines of a shell's that are run first. */
function runsFirst(lines: string, ramdisk: string) {
  const data = new TextEncoder().encode(`#!/bin/busybox sh\n${lines}`);
  const more = gzipSync(writeCpio([{ kind: "file", path: "first", mode: 0o755, data }]));
  return {
    ramdisk: Uint8Array.from([...Deno.readFileSync(ramdisk), ...more]),
    cmdline: `${CMDLINE} rdinit=/first`,
  };
}

/**
 * A boot's domain at its first instruction, and the host that is its own.
 *
 * @param more of the host; `first`: what a guest with a number of vCPUs runs in place of saying it
 * @throws what refuses it
 */
export async function startBoot(
  it: Boot,
  cpuid: string,
  { first = SAY_PROCESSORS, ...more }: StartOptions & { readonly first?: string } = {},
): Promise<{ readonly hv: Hypervisor; readonly dom: GuestDomain }> {
  const { kernel: { type, xen = false }, cpu, paging, vcpus, cpus } = it;
  const { kernel, ramdisk } = filesOf(it);
  const hv = await Hypervisor.start({
    cpu,
    memory: `${MEMORY + 96}M`,
    ...(cpus === undefined ? {} : { cpus }),
    ...more,
  });
  const options = {
    name: "guest",
    type,
    kernel,
    memory: `${MEMORY}M`,
    ...(vcpus === undefined ? { ramdisk, cmdline: CMDLINE } : {
      vcpus,
      ...runsFirst(first, ramdisk),
    }),
    ...(type === "bare" ? {} : { paging, xen }),
    ...(cpuid === "own" ? {} : { cpuid }),
  };
  return { hv, dom: await hv.createDomain(options as DomainOptions) };
}

// --- a process for each ---

const children = new Set<Deno.ChildProcess>();

/** At ctrl-C the processes that were started end with this one. */
export function endWithChildren(): void {
  Deno.addSignalListener("SIGINT", () => {
    for (const child of children) child.kill("SIGKILL");
    Deno.exit(130);
  });
}

/**
 * Runs a script as a process of its own (`--to FILE` among its arguments), and waits for the JSON that
 * it writes to the file.
 *
 * @param timeout seconds
 * @returns what it wrote, or how it failed
 */
export async function runChild<T>(
  script: string,
  options: readonly string[],
  timeout: number,
): Promise<T | string> {
  const file = Deno.makeTempFileSync({ prefix: "xvm-child-" });
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", script, ...options, "--to", file],
    stdin: "null",
  }).spawn();
  children.add(child);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, timeout * 1000);
  try {
    const { success, code } = await child.status;
    if (late) return `${timeout} seconds passed`;
    if (!success) return `its process ended with status ${code}`;
    return JSON.parse(await Deno.readTextFile(file));
  } finally {
    clearTimeout(timer);
    children.delete(child);
    Deno.removeSync(file);
  }
}

/** Runs a script as a boot's process: `--boot WORD`, see {@linkcode bootOf}. */
export function runBoot<T>(
  script: string,
  it: Boot,
  options: readonly string[],
  timeout: number,
): Promise<T | string> {
  const word = JSON.stringify({ ...it, kernel: it.kernel.name });
  return runChild(script, [...options, "--boot", word], timeout);
}

/** The boot that its process was started for. */
export function bootOf(word: string): Boot {
  const it = JSON.parse(word) as Omit<Boot, "kernel"> & { readonly kernel: string };
  return { ...it, kernel: ALL.find(({ name }) => name === it.kernel)! };
}
