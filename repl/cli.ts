/**
 * The command line: the commands of `xvm`, and what they take.
 *
 * @module
 */
import { Command, EnumType, ValidationError } from "@cliffy/command";
import config from "../deno.json" with { type: "json" };
import type { BootOptions } from "./boot.ts";
import { parseSize } from "./size.ts";

/** Wrong arguments: exit status 2. */
class Misuse extends ValidationError {}

const cpuType = new EnumType(["intel", "amd"]);
const guestType = new EnumType(["bare", "hvm", "pvh", "pv"]);
const pagingType = new EnumType(["hap", "shadow"]);

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
      done(await shell({ code, files: await Promise.all(files.map(existing)) }));
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
    .option("--kernel <file:string>", "A Linux image, an ELF or a multiboot image.", {
      required: true,
    })
    .option("--ramdisk <file:string>", "The initial ramdisk.")
    .option("--cmdline <text:string>", "The kernel's command line.")
    .option("--symbols <file:string>", "System.map, or an ELF with symbols.")
    .option("--type <type:guest>", "bare, hvm, pvh or pv.", { default: "hvm" })
    .option("--cpu <vendor:cpu>", "The simulated processor: intel or amd.", { default: "intel" })
    .option("--paging <mode:paging>", "hap (nested) or shadow.", { default: "hap" })
    .option(
      "--cpuid <changes:string>",
      "What CPUID shows: a model (common, nehalem, …), then feature=0 or leaf.register=value, commas between.",
    )
    .option("--memory <size:string>", "Memory of the guest: 256M, 1G.", { default: "256M" })
    .option("--vcpus <n:integer>", "Virtual processors.", { default: 1 })
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
    .description("A domain from a file: xl.cfg syntax, or a .ts file that exports a configuration.")
    .arguments("<file:string>")
    .action(async (_, file) => {
      const { readDomainFile } = await import("./xl.ts");
      const read = await readDomainFile(await existing(file)).catch((error) => {
        throw new Misuse(error.message);
      });
      if (!read.kernel) throw new Misuse(`${file}: names no kernel`);
      const { boot } = await import("./boot.ts");
      const { memory = 256 * 2 ** 20, vcpus = 1, type = "hvm", cpu = "intel", paging = "hap" } =
        read;
      const kernel = read.kernel;
      done(await boot(await checked({ ...read, kernel, memory, vcpus, type, cpu, paging })));
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
type Written = Omit<BootOptions, "memory"> & { memory: string };

async function bootOptions(options: Written): Promise<BootOptions> {
  let memory: number;
  try {
    memory = parseSize(options.memory);
  } catch (error) {
    throw new Misuse(`--memory: ${(error as Error).message}`);
  }
  return await checked({ ...options, memory });
}

async function checked(options: BootOptions): Promise<BootOptions> {
  const { memory, vcpus, timeout } = options;
  if (memory < 2 ** 20 || memory > 2 ** 36) {
    throw new Misuse(`memory: expected 1M to 64G, got ${memory} bytes`);
  }
  if (!(vcpus >= 1 && vcpus <= 64)) throw new Misuse(`vcpus: expected 1 to 64, got ${vcpus}`);
  if (timeout !== undefined && !(timeout > 0)) {
    throw new Misuse(`--timeout: expected seconds above 0, got ${timeout}`);
  }
  if (options.cpuid !== undefined) await checkCpuid(options.cpu, options.cpuid);
  for (const file of [options.kernel, options.ramdisk, options.symbols]) {
    if (file !== undefined) await existing(file);
  }
  return options;
}

async function checkCpuid(cpu: BootOptions["cpu"], text: string): Promise<void> {
  const { parseCpuid } = await import("../src/debug/cpuid.ts");
  const { guestCpuid } = await import("../src/machine/features.ts");
  try {
    guestCpuid(cpu, parseCpuid(text));
  } catch (error) {
    throw new Misuse((error as Error).message);
  }
}

/** The path, when there is a file that can be read. */
async function existing(path: string): Promise<string> {
  try {
    const { isFile } = await Deno.stat(path);
    if (isFile) return path;
  } catch (error) {
    throw new Misuse(
      error instanceof Deno.errors.NotFound
        ? `${path}: no such file`
        : `${path}: ${(error as Error).message}`,
    );
  }
  throw new Misuse(`${path}: is no file`);
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
    const { showError } = await import("./evaluator/show.ts");
    console.error(
      usage
        ? `xvm${known}: ${error.message}\nxvm${known} --help tells more`
        : `xvm${known}: ${
          Deno.env.get("XVM_STACK") ? showError(error, { frames: "all" }) : error.message
        }`,
    );
    return usage ? 2 : 1;
  }
}
