/**
 * The boots of real kernels that the tests of them share: which there are, and a process for each.
 *
 * @module
 */
import { type DomainOptions, Hypervisor } from "xvm";
import type { GuestDomain } from "../src/debug/domain.ts";
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
}
const RAMDISKS = { 32: "tiny-i386", 64: "tiny-amd64" } as const;
export const KERNELS: readonly Kernel[] = [
  { name: "686 bzImage", file: "vmlinuz-686", bits: 32, type: "hvm" },
  { name: "686-pae PVH", file: "vmlinux-686-pae", bits: 32, type: "pvh" },
  { name: "cloud PVH", file: "vmlinux-cloud", bits: 64, type: "pvh" },
  { name: "cloud bzImage", file: "vmlinuz-cloud", bits: 64, type: "hvm" },
  { name: "amd64 PVH", file: "vmlinux-amd64", bits: 64, type: "pvh" },
  { name: "cloud bare", file: "vmlinux-cloud", bits: 64, type: "bare" },
];

/** One boot. */
export interface Boot {
  readonly kernel: Kernel;
  readonly cpu: "intel" | "amd";
  readonly paging: "hap" | "shadow";
}

export const nameOf = ({ kernel, cpu, paging }: Boot): string =>
  kernel.type === "bare" ? `${kernel.name} ${cpu}` : `${kernel.name} ${cpu} ${paging}`;

/** The boots that words choose: vendors, kinds of paging, names of kernels or parts of them. */
export function chosen(words: readonly string[]): Boot[] {
  const of = <T extends string>(all: readonly T[]) => {
    const named = all.filter((it) => words.includes(it));
    return named.length ? named : all;
  };
  const cpus = of(["intel", "amd"] as const), pagings = of(["hap", "shadow"] as const);
  const names = words.filter((w) => !["intel", "amd", "hap", "shadow"].includes(w));
  const kernels = KERNELS.filter((k) =>
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
export const CHOICES: string = `intel, amd, hap, shadow, and: ${
  KERNELS.map((k) => k.name).join(", ")
}`;

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

/** A boot's domain at its first instruction, and the host that is its own. @throws what refuses it */
export async function startBoot(
  it: Boot,
  cpuid: string,
): Promise<{ readonly hv: Hypervisor; readonly dom: GuestDomain }> {
  const { kernel: { type }, cpu, paging } = it;
  const hv = await Hypervisor.start({ cpu, memory: `${MEMORY + 96}M` });
  const options = {
    name: "guest",
    type,
    ...filesOf(it),
    cmdline: CMDLINE,
    memory: `${MEMORY}M`,
    ...(type === "bare" ? {} : { paging }),
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
  const word = `${KERNELS.indexOf(it.kernel)},${it.cpu},${it.paging}`;
  return runChild(script, [...options, "--boot", word], timeout);
}

/** The boot that its process was started for. */
export function bootOf(word: string): Boot {
  const [index, cpu, paging] = word.split(",");
  return { kernel: KERNELS[Number(index)], cpu, paging } as Boot;
}
