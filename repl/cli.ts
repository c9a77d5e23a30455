/**
 * The command line: the commands of `xvm`, and what they take.
 *
 * @module
 */
import { Command, EnumType, ValidationError } from "@cliffy/command";
import config from "../deno.json" with { type: "json" };
import type { BootOptions } from "./boot.ts";
import { GUEST_PROCESSORS, HOST_PROCESSORS_MAX } from "../src/abi/limits.ts";
import { GUEST_TYPES } from "../src/abi/boot/images.ts";
import { brief, counted } from "../src/builder/errors.ts";
import { imageList, takers } from "../src/builder/image_list.ts";
import { parseSize } from "./size.ts";

/** Wrong arguments: exit status 2. */
class Misuse extends ValidationError {}

const cpuType = new EnumType(["intel", "amd"]);
const guestType = new EnumType([...GUEST_TYPES]);
const pagingType = new EnumType(["hap", "shadow"]), clockType = new EnumType(["own", "host"]);

/** Ends with the status once the command is done; `null` leaves the process to its own end. */
type Done = (code: number | null) => void;

function replCommand(done: Done) {
  return new Command()
    .description("The shell, with scripts preloaded; -c, or input from a pipe: no prompt.")
    .option("-c, --code <code:string>", "Evaluate this, print the results and end.")
    .arguments("[files...:string]")
    .example("xvm repl trace.ts", "The shell, after trace.ts was loaded into it.")
    .example("xvm repl -c '1n << 40n'", "Prints 0x10000000000n; exits 1 when the code throws.")
    .action(async ({ code }, ...files) => {
      const { shell } = await import("./shell.ts");
      done(await shell({ code, files: await Promise.all(files.map((file) => existing(file))) }));
    });
}

function runCommand(done: Done) {
  return new Command()
    .description("A script without a prompt; its exit status is the command's.")
    .arguments("<file:string> [args...:string]")
    .stopEarly()
    .action(async (_, file, ...args) => {
      const { runScript } = await import("./run.ts");
      done(await runScript(await existing(file), args));
    });
}

function bootCommand(done: Done) {
  return new Command()
    .description("A guest with its console on the terminal; ctrl-] opens the shell over it.")
    .type("cpu", cpuType).type("guest", guestType).type("paging", pagingType)
    .type("clock", clockType)
    .option("--kernel <file:string>", `${imageList()}, as it is or in gzip, xz or zstd.`, {
      required: true,
    })
    .option("--ramdisk <file:string>", "The initial ramdisk.")
    .option(
      "--module <text:string>",
      `A file for a kernel entered by ${
        takers("modules")
      }, and its command line behind a blank; once for each.`,
      { collect: true },
    )
    .option("--cmdline <text:string>", "The kernel's command line.")
    .option("--symbols <file:string>", "System.map, or an ELF with symbols.")
    .option("--type <type:guest>", `${GUEST_TYPES.join(", ")}.`, { default: "hvm" })
    .option("--cpu <vendor:cpu>", "The simulated processor: intel or amd.", { default: "intel" })
    .option("--paging <mode:paging>", "hap (nested) or shadow.", { default: "hap" })
    .option("--shadow-memory <size:string>", "Memory for shadow tables: 1M.")
    .option(
      "--xen",
      "The guest knows Xen: hypercalls, event channels and what goes with them; a pvh guest does anyway.",
    )
    .option("--hide-xen", "A pvh guest, too, finds nothing of Xen.")
    .option("--clock <whose:clock>", "The guest's time is its own, or the host's.")
    .option(
      "--cpuid <changes:string>",
      "What CPUID shows: a model (common, nehalem, …), then feature=0 or leaf.register=value, commas between.",
    )
    .option("--memory <size:string>", "Memory of the guest: 256M, 1G.", { default: "256M" })
    .option("--vcpus <n:integer>", "Virtual processors.", { default: 1 })
    .option(
      "--cpus <n:integer>",
      "Processors of the simulated host; 1, or for a bare guest as many as it has.",
    )
    .option(
      "--until <text:string>",
      "Exit 0 when the console shows it, 1 when the guest stops first.",
    )
    .option("--timeout <seconds:number>", "Exit 1 after so many seconds.")
    .option("--stats", "One line of JSON on standard error: instructions, seconds, exits, …")
    .example(
      "xvm boot --kernel vmlinuz --ramdisk initrd.gz --cmdline 'console=ttyS0'",
      "A Linux guest.",
    )
    .action(async (options) => {
      const { boot } = await import("./boot.ts");
      done(await boot(await bootOptions(options as Written)));
    });
}

function createCommand(done: Done) {
  return new Command()
    .description(
      "Domains from files, on one host: xl.cfg syntax, or a .ts file that exports a configuration.",
    )
    .arguments("<files...:string>")
    .option("--until <text:string>", "Exit 0 when every domain's console has shown it.")
    .option("--timeout <seconds:number>", "Exit 1 after so many seconds.")
    .option("--stats", "A line of JSON for each domain on standard error.")
    .option("-n, --dry-run", "Say what the files come to, and create nothing.")
    .example("xvm create debian.cfg", 'name = "debian"; kernel = "vmlinuz"; memory = 256')
    .example("xvm create web.ts db.cfg", "Two domains share the host by their cpu_weight.")
    .action(async ({ dryRun, ...options }, ...paths) => {
      const { ownKeys, readDomainFile, xlKeys } = await import("./xl.ts");
      const files = [];
      for (const path of paths) {
        const file = await readDomainFile(await existing(path)).catch((error) => {
          throw new Misuse(error.message);
        });
        for (const key of ["kernel", "ramdisk", "symbols"]) {
          const named = file.options[key];
          if (typeof named === "string") await existing(named, `${path}: ${key}: `);
        }
        files.push(file);
      }
      checkHosts(files, paths);
      if (options.timeout !== undefined && !(options.timeout > 0)) {
        throw new Misuse(`--timeout: expected seconds above 0, got ${options.timeout}`);
      }
      if (dryRun) {
        for (const { options, host, actions } of files) {
          console.log(JSON.stringify({ ...host, ...options, actions }, shortBytes, 2));
        }
        console.log(
          `keys of xl.cfg: ${xlKeys.filter((key) => !ownKeys.includes(key)).join(" ")}\n` +
            `and our own: ${ownKeys.join(" ")}`,
        );
        return;
      }
      const { create } = await import("./create.ts");
      done(await create(files, options));
    });
}

const shortBytes = (_: string, value: unknown) =>
  value instanceof Uint8Array ? counted(value.length, "byte") : value;

/** Files for one host have to agree about it, and about their domains' names. */
function checkHosts(files: { host: object; options: { name?: string } }[], paths: string[]): void {
  const seen = new Map<string, { value: unknown; path: string }>();
  files.forEach(({ host, options }, n) => {
    for (const [key, value] of Object.entries(host)) {
      const before = seen.get(key);
      if (before && before.value !== value) {
        throw new Misuse(
          `${paths[n]}: ${key} is ${brief(JSON.stringify(value))}, but ${before.path} has ` +
            `${brief(JSON.stringify(before.value))}: the domains are on one host`,
        );
      }
      seen.set(key, { value, path: paths[n] });
    }
    const same = options.name &&
      files.slice(0, n).findIndex((f) => f.options.name === options.name);
    if (same !== undefined && same !== "" && same >= 0) {
      throw new Misuse(
        `${paths[n]}: the name "${brief(options.name ?? "")}" is ${paths[same]}'s already`,
      );
    }
  });
}

function guestsCommand(done: Done) {
  return new Command()
    .description("Guest images made from Debian's packages: list, fetch NAME….")
    .arguments("[words...:string]")
    .option("--force", "Make an image again that is there.")
    .example("xvm guests fetch 686 tiny-i386", "A Debian kernel and a small ramdisk for it.")
    .action(async ({ force }, ...words) => {
      const { guests } = await import("./guests/choose.ts");
      done(await guests([...words, ...(force ? ["--force"] : [])]));
    });
}

/** The options of `xvm boot` as they were written. */
type Written = Omit<BootOptions, "memory" | "shadowMemory" | "modules"> & {
  memory: string;
  module?: string[];
  shadowMemory?: string;
  hideXen?: boolean;
};

async function bootOptions(options: Written): Promise<BootOptions> {
  const size = (option: string, text: string, min: string, max: string) => {
    try {
      const bytes = parseSize(text);
      if (bytes >= parseSize(min) && bytes <= parseSize(max) && bytes % 4096 === 0) return bytes;
    } catch (error) {
      throw new Misuse(`${option}: ${(error as Error).message}`);
    }
    throw new Misuse(`${option}: expected ${min} to ${max} in whole pages of 4K, got ${text}`);
  };
  const { shadowMemory: shadow, paging } = options;
  if (shadow !== undefined && paging !== "shadow") {
    throw new Misuse("--shadow-memory: expected --paging shadow too");
  }
  const { module, hideXen, ...rest } = options;
  if (hideXen && options.xen) throw new Misuse("--hide-xen: expected no --xen beside it");
  return await checked({
    ...rest,
    xen: hideXen ? false : rest.xen,
    modules: module?.map(moduleOf),
    memory: size("--memory", options.memory, "2M", "3G"),
    shadowMemory: shadow === undefined ? undefined : size("--shadow-memory", shadow, "64K", "1G"),
  });
}

/** "FILE ARGUMENTS": what follows the first blank is the module's command line. */
function moduleOf(text: string): { file: string; cmdline?: string } {
  const [, file, cmdline] = text.match(/^(\S+)(?:\s+(.*))?$/s) ?? [];
  if (file === undefined) {
    throw new Misuse(
      `--module: expected FILE, or "FILE ARGUMENTS", got ${brief(JSON.stringify(text))}`,
    );
  }
  return { file, cmdline };
}

async function checked(options: BootOptions): Promise<BootOptions> {
  const { vcpus, cpus, timeout, type } = options, { min, max } = GUEST_PROCESSORS;
  const most = type === "bare" ? cpus ?? HOST_PROCESSORS_MAX : max;
  if (cpus !== undefined && !(cpus >= 1 && cpus <= HOST_PROCESSORS_MAX)) {
    throw new Misuse(`cpus: expected 1 to ${HOST_PROCESSORS_MAX}, got ${cpus}`);
  }
  if (!(vcpus >= min && vcpus <= most)) {
    const bare = most < max ? " (a bare guest's are the host's processors)" : "";
    throw new Misuse(`vcpus: expected ${min} to ${most}${bare}, got ${vcpus}`);
  }
  if (timeout !== undefined && !(timeout > 0)) {
    throw new Misuse(`--timeout: expected seconds above 0, got ${timeout}`);
  }
  if (options.cpuid !== undefined) await checkCpuid(options, options.cpuid);
  const modules = options.modules?.map(({ file }) => file) ?? [];
  for (const file of [options.kernel, options.ramdisk, options.symbols, ...modules]) {
    if (file !== undefined) await existing(file);
  }
  return options;
}

async function checkCpuid({ cpu, type, vcpus }: BootOptions, text: string): Promise<void> {
  const { parseCpuid } = await import("../src/debug/views/cpuid.ts");
  const { guestCpuid } = await import("../src/machine/features.ts");
  try {
    guestCpuid(cpu, parseCpuid(text), type === "bare", vcpus);
  } catch (error) {
    throw new Misuse((error as Error).message);
  }
}

/** The path, when there is a file that can be read. */
async function existing(path: string, what = ""): Promise<string> {
  try {
    const { isFile } = await Deno.stat(path);
    if (isFile) return path;
  } catch (error) {
    throw new Misuse(
      error instanceof Deno.errors.NotFound
        ? `${what}${brief(path)}: no such file`
        : `${what}${brief(path)}: ${brief((error as Error).message)}`,
    );
  }
  throw new Misuse(`${what}${brief(path)}: is no file`);
}

/** Runs the command line; resolves to the exit status, or null when the process ends by itself. */
export async function commandLine(args: string[]): Promise<number | null> {
  let code: number | null = 0;
  const done: Done = (status) => void (code = status);
  const xvm = new Command()
    .name("xvm")
    .version(config.version)
    .description("A scriptable hypervisor shell: real x86 guests on a simulated computer.")
    .action(async () => {
      const { shell } = await import("./shell.ts");
      done(await shell({ files: [] }));
    })
    .noExit()
    .command("repl", replCommand(done))
    .command("run", runCommand(done))
    .command("boot", bootCommand(done))
    .command("create", createCommand(done))
    .command("guests", guestsCommand(done));
  try {
    await xvm.parse(args);
    return code;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const usage = error instanceof ValidationError;
    const known = ["repl", "run", "boot", "create", "guests"].includes(args[0])
      ? ` ${args[0]}`
      : "";
    const { MESSAGE_MAX, showError } = await import("./evaluator/show.ts");
    const message = brief(error.message, MESSAGE_MAX);
    console.error(
      usage
        ? `xvm${known}: ${message}\nxvm${known} --help tells more`
        : `xvm${known}: ${
          Deno.env.get("XVM_STACK") ? showError(error, { frames: "all" }) : message
        }`,
    );
    return usage ? 2 : 1;
  }
}
