/** The machines that are compared, each as a command line that boots a kernel or a multiboot image. */
import { guestsFolder } from "../../repl/guests/images.ts";

/** What is to be booted. */
export interface Boot {
  readonly kernel: string;
  readonly ramdisk?: string;
  readonly cmdline?: string;
  /** A 64-bit kernel. */
  readonly long?: boolean;
  /** Megabytes. */
  readonly memory: number;
}

export interface Machine {
  readonly name: string;
  /** Ours; the others are ratios' denominators. */
  readonly own: boolean;
  /** Undefined if it cannot run this. `until`: the console text after which it may end. */
  command(boot: Boot, until: string): readonly string[] | undefined;
}

const ROOT = new URL("../../", import.meta.url).pathname;
const PEERS = new URL("./peers/", import.meta.url).pathname;
const V86_VERSION = "0.5.462";

function xvm(type: "bare" | "hvm", paging: "hap" | "shadow" = "hap"): Machine {
  return {
    name: paging === "hap" ? `xvm ${type}` : `xvm ${type} ${paging}`,
    own: true,
    command: ({ kernel, ramdisk, cmdline, memory }, until) => [
      Deno.execPath(),
      ...["run", "-A", `${ROOT}repl/main.ts`, "boot", "--stats", "--type", type],
      ...["--paging", paging],
      ...["--kernel", kernel, ...ramdisk ? ["--ramdisk", ramdisk] : []],
      ...[...cmdline ? ["--cmdline", cmdline] : [], "--memory", `${memory}M`, "--until", until],
    ],
  };
}

/** Ours with shadow paging: boots tell what it costs. */
export const shadowed: Machine = xvm("hvm", "shadow");

const qemu: Machine = {
  name: "QEMU TCG",
  own: false,
  command: ({ kernel, ramdisk, cmdline, memory, long }) => [
    long ? "qemu-system-x86_64" : "qemu-system-i386",
    ...["-accel", "tcg,thread=single", "-m", `${memory}`, "-nographic", "-no-reboot"],
    ...["-nodefaults", "-serial", "stdio", "-kernel", kernel],
    ...[...ramdisk ? ["-initrd", ramdisk] : [], ...cmdline ? ["-append", cmdline] : []],
  ],
};

/** v86 from the npm registry, kept in the cache folder; it runs under Node. */
function v86(folder: string): Machine {
  return {
    name: "v86",
    own: false,
    command: ({ kernel, ramdisk, cmdline, memory, long }) =>
      ramdisk === undefined || long ? undefined : [
        "node",
        ...[`${PEERS}v86.mjs`, folder, kernel, ramdisk, cmdline ?? "", `${memory * 2 ** 20}`],
      ],
  };
}

async function v86Folder(): Promise<string> {
  const prefix = `${guestsFolder()}/../bench`;
  const folder = `${prefix}/node_modules/v86`;
  try {
    await Deno.stat(`${folder}/build/v86.wasm`);
  } catch {
    await Deno.mkdir(prefix, { recursive: true });
    const { success, stderr } = await new Deno.Command("npm", {
      args: ["install", "--silent", "--prefix", prefix, `v86@${V86_VERSION}`],
    }).output();
    if (!success) throw new Error(`npm could not install v86: ${new TextDecoder().decode(stderr)}`);
  }
  return await Deno.realPath(folder);
}

/** What is here: ours always, the peers if they can be had; `missing` says why one is not. */
export async function machines(): Promise<{ found: Machine[]; missing: string[] }> {
  const found = [xvm("bare"), xvm("hvm")], missing: string[] = [];
  try {
    await new Deno.Command("qemu-system-i386", { args: ["--version"], stdout: "null" }).output();
    found.push(qemu);
  } catch {
    missing.push("QEMU: qemu-system-i386 is not installed (Debian: qemu-system-x86)");
  }
  try {
    await Deno.stat("/usr/share/seabios/bios.bin");
    found.push(v86(await v86Folder()));
  } catch (error) {
    missing.push(`v86: ${error instanceof Error ? error.message : error} (Debian: seabios)`);
  }
  return { found, missing };
}
