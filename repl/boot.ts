/**
 * `xvm boot`: a domain whose console is the terminal.
 *
 * @module
 */
import process from "node:process";
import { MACHINE_MEMORY_MAX } from "../src/abi/limits.ts";
import type { BootDomain, BootHost } from "./api.ts";
import { openHost } from "./api.ts";
import type { GuestType } from "../src/abi/boot/images.ts";
import { brief, counted } from "../src/builder/errors.ts";
import { Terminal } from "./editor/terminal.ts";
import { Shell } from "./interactive.ts";
import { writeOut } from "./output.ts";
import { prelude } from "./prelude.ts";

/** What to boot, and when it is done. */
export interface BootOptions {
  name?: string;
  type: GuestType;
  cpu: "intel" | "amd";
  paging: "hap" | "shadow";
  kernel: string;
  ramdisk?: string;
  /** Files beside the ramdisk, for a kernel that takes some: the path, then its command line. */
  modules?: { file: string; cmdline?: string }[];
  cmdline?: string;
  /** Bytes of the domain. */
  memory: number;
  /** Bytes for shadow tables; Xen's rule if not given. */
  shadowMemory?: number;
  vcpus: number;
  /** Xen's interface is there for it. */
  xen?: boolean;
  /** Whose time it has. */
  clock?: "own" | "host";
  /** Processors of the host; as {@linkcode openHost} has it if not given. */
  cpus?: number;
  /** The processor the guest sees, as xl's `cpuid=` says it: "common", "host,rdrand=0". */
  cpuid?: string;
  /** A file of symbols: System.map or an ELF. */
  symbols?: string;
  /** Exit 0 when the console shows this. */
  until?: string;
  /** Seconds of the host's clock. */
  timeout?: number;
  /** Whether a line of JSON with what it took goes to standard error. */
  stats?: boolean;
}

/** How a boot ended. */
interface End {
  /** The exit status. */
  code: number;
  /** What to say on standard error, if anything. */
  message?: string;
}

/** Boots a domain; resolves to the exit status: 0 as wished, 1 when the guest stopped or time was up. */
export async function boot(options: BootOptions): Promise<number> {
  const started = performance.now();
  const host = await openHost({
    cpu: options.cpu,
    cpus: options.cpus,
    memory: hostMemory([options]),
  });
  let end: End;
  try {
    const domain = await host.createDomain(domainOf(options));
    const done = watch(domain, options);
    end = Terminal.available
      ? await atTerminal(host, domain, done, options)
      : await plainly(domain, done);
    if (end.message) console.error(`xvm boot: ${end.message}`);
    if (options.stats) console.error(JSON.stringify(statistics(host, domain, started)));
  } finally {
    await host.close();
  }
  return end.code;
}

/** What the host needs for domains: their memory, and the hypervisor's own share beside each. */
export function hostMemory(domains: readonly { memory: number; shadowMemory?: number }[]): number {
  const share = ({ memory, shadowMemory = 0 }: typeof domains[number]) =>
    memory + Math.max(64 * 2 ** 20, memory / 4, shadowMemory + 32 * 2 ** 20);
  return Math.min(domains.reduce((sum, it) => sum + share(it), 0), MACHINE_MEMORY_MAX);
}

function domainOf(options: BootOptions) {
  const { name = "guest", type, paging, kernel, ramdisk, cmdline, memory, vcpus } = options;
  const { symbols, cpuid, shadowMemory, modules, xen, clock } = options;
  const more = { symbols, cpuid, shadowMemory, modules, xen, clock };
  return { name, type, paging, kernel, ramdisk, cmdline, memory, vcpus, ...more };
}

/** Resolves when the text appeared, the guest ended, or time was up. */
function watch(domain: BootDomain, { until, timeout }: BootOptions): Promise<End> {
  const ways: Promise<End>[] = [
    beyondLoads(() => domain.ended).then(({ reason, detail, ok }) => ({
      code: until === undefined && ok ? 0 : 1,
      message: until === undefined && ok
        ? undefined
        : `the guest stopped: ${reason} (${detail})${
          until === undefined ? "" : `, before the console showed ${brief(JSON.stringify(until))}`
        }${lastWords(domain)}`,
    })),
  ];
  if (until !== undefined) ways.push(shows(domain, until).then(() => ({ code: 0 })));
  let timer: ReturnType<typeof setTimeout> | undefined;
  if (timeout !== undefined) {
    ways.push(
      new Promise((resolve) => {
        const message = `${counted(timeout, "second")} passed` +
          (until === undefined
            ? ""
            : `, and the console did not show ${brief(JSON.stringify(until))}`);
        timer = setTimeout(() => resolve({ code: 1, message }), timeout * 1000);
      }),
    );
  }
  return Promise.race(ways).finally(() => clearTimeout(timer));
}

/** Why the processor stopped, and what stands on the text screen: a guest that fails early uses that. */
function lastWords(domain: BootDomain): string {
  const lines: string[] = [];
  const [vcpu] = domain.vcpus;
  const why = vcpu.why();
  if (!String(why).startsWith("nothing")) lines.push(...Deno.inspect(why).split("\n"));
  const screen = domain.screen.text().split("\n").map((it) => it.trimEnd()).filter((it) => it);
  if (screen.length) lines.push("the screen shows:", ...screen.slice(-5).map((it) => `  ${it}`));
  return lines.map((it) => `\n  ${it}`).join("");
}

/** Resolves when the console shows `text`; never if the domain ends first. */
export function shows(domain: BootDomain, text: string): Promise<void> {
  return beyondLoads(() => domain.console.shows(text)).catch(() => new Promise(() => {}));
}

/** What comes of a domain, whatever saved states it is put into meanwhile. */
export async function beyondLoads<T>(wait: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await wait();
    } catch (error) {
      if ((error as { reason?: unknown }).reason !== "loaded") throw error;
    }
  }
}

/** No terminal: the console goes to standard output, standard input to the console. */
async function plainly(domain: BootDomain, done: Promise<End>): Promise<End> {
  const stop = domain.console.onOutput(writeOut, { passive: true });
  void typeFrom(() => domain);
  await domain.unpause();
  const end = await done;
  await domain.pause();
  stop();
  // The guest stands where it said so, most likely within a line.
  if (end.code === 0 && !/(^|\n)$/.test(domain.console.text)) writeOut("\n");
  return end;
}

/** Standard input goes to the console of the domain there is. */
export async function typeFrom(domain: () => BootDomain): Promise<void> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(4096);
  for (;;) {
    const length = await Deno.stdin.read(buffer).catch(() => null);
    if (length === null) return;
    domain().console.write(decoder.decode(buffer.subarray(0, length), { stream: true }));
  }
}

/** The console on the terminal; ctrl-] opens the shell over the running guest. */
async function atTerminal(
  host: BootHost,
  domain: BootDomain,
  done: Promise<End>,
  { until, timeout }: BootOptions,
): Promise<End> {
  const shell = new Shell();
  let end: End | undefined;
  done.then((it) => {
    end = it;
    // Without a wish for its end, a guest that stopped is there to be looked at.
    if (until !== undefined || timeout !== undefined || it.code === 0) shell.finish(it.code);
    else {
      shell.detach();
      shell.print(`${it.message}\nthe domain is still there to look at; ctrl-D leaves\n`);
    }
  });
  const code = await shell.run(async (session) => {
    session.use(host);
    prelude(session);
    await shell.attach(domain);
  });
  await domain.pause();
  return end ?? { code };
}

/** What it took, for a line of JSON. */
export function statistics(host: BootHost, domain: BootDomain, started: number) {
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage();
  const cpu = (user + system) / 1e6;
  const { instructions, exits, shadow } = domain.statistics();
  const round = (value: number) => Math.round(value * 1000) / 1000;
  return {
    instructions: Number(instructions),
    seconds: round(seconds),
    cpu_seconds: round(cpu),
    mips: round(Number(instructions) / 1e6 / seconds),
    exits,
    ...(shadow && { shadow }),
    state_hash: host.stateHash(),
  };
}
