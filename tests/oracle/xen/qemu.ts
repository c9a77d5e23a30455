/**
 * Runs programs on Debian's Xen under QEMU, whose TCG has SVM and nested paging.
 *
 * @module
 */
import { bootFiles, initramfs, MARK, type NamedProgram } from "./dom0.ts";
import { xenFolder } from "./packages.ts";
import { readRun, type Run } from "./program.ts";

/** What a program answered, and how its domain ended: `---s--` and the reason, as xl lists them. */
export interface XenRun extends Run {
  readonly ending: string;
}

/**
 * QEMU's max processor has SMAP, but its SMAP takes a PV domain 0's frames for user memory; so Xen
 * leaves it off. The console is synchronous, or lines of the guests would be lost.
 */
const XEN_OPTIONS = "console=com1 com1=115200,8n1 loglvl=error guest_loglvl=all sync_console " +
  "dom0_mem=400M,max:400M dom0_max_vcpus=1 smap=0 smep=0 ucode=no spec-ctrl=no";
const KERNEL_OPTIONS = "console=hvc0 quiet mitigations=off cryptomgr.notests nokaslr";

/**
 * Runs each program in a domain of its own, one after the other; `report` gets a line for each. What
 * comes over the serial line is kept in the file `serial`, if one is named. A program that brings Xen
 * itself down has no run, and the others go on after a new start.
 */
export async function runOnXen(
  programs: readonly NamedProgram[],
  report: (line: string) => void,
  serial?: string,
): Promise<Map<string, XenRun>> {
  const runs = new Map<string, XenRun>();
  let left = [...programs].sort((a, b) => a.name < b.name ? -1 : 1);
  while (left.length > 0) {
    const { fallen, last } = await boot(left, runs, report, serial);
    if (fallen === undefined && left.some(({ name }) => !runs.has(name))) {
      throw new Error(`Xen did not come to the programs; its last lines were\n${last}`);
    }
    if (fallen !== undefined) report(`${fallen} brought Xen down:\n${last}`);
    left = left.filter(({ name }) => name !== fallen && !runs.has(name));
  }
  return runs;
}

/** Programs that fell, with Xen: the name, and what it said last. */
interface Boot {
  readonly fallen?: string;
  readonly last: string;
}

async function boot(
  programs: readonly NamedProgram[],
  runs: Map<string, XenRun>,
  report: (line: string) => void,
  serial?: string,
): Promise<Boot> {
  const root = `${xenFolder()}/root`, made = await Deno.makeTempDir({ prefix: "xvm-xen-" });
  try {
    const { xen, kernel } = await bootFiles(root);
    await Deno.writeFile(`${made}/xen`, xen);
    await Deno.writeFile(`${made}/initrd`, await initramfs(root, programs));
    const child = new Deno.Command("qemu-system-x86_64", {
      args: [
        ...["-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1G"],
        ...["-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "none"],
        ...["-kernel", `${made}/xen`, "-append", XEN_OPTIONS],
        ...["-initrd", `${kernel} ${KERNEL_OPTIONS},${made}/initrd`],
      ],
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    try {
      const [read, kept] = child.stdout.tee();
      const keep = serial ? Deno.writeFile(serial, kept, { append: true }) : kept.cancel();
      const result = await readSerial(read, runs, report);
      await keep;
      return result;
    } finally {
      try {
        child.kill("SIGTERM");
      } catch { /* it is gone */ }
      await child.status;
    }
  } finally {
    await Deno.remove(made, { recursive: true });
  }
}

async function readSerial(
  serial: ReadableStream<Uint8Array<ArrayBuffer>>,
  runs: Map<string, XenRun>,
  report: (line: string) => void,
): Promise<Boot> {
  const last: string[] = [];
  let lines: string[] = [], now: { name: string; domain: string } | undefined;
  for await (const line of linesOf(serial)) {
    last.push(line);
    if (last.length > 12) last.shift();
    const printed = /^\(d(\d+)\) (.*)$/.exec(line);
    if (printed && printed[1] === now?.domain) lines.push(printed[2]);
    const [mark, name, ...rest] = line.split(" ");
    if (mark === MARK.begin) [now, lines] = [{ name, domain: rest[0] }, []];
    if (mark === MARK.end) {
      runs.set(name, { ...readRun(lines), ending: rest.join(" ") });
      report(`${name}: ${rest.join(" ")}`);
      [now, lines] = [undefined, []];
    }
    if (mark === MARK.done) return { last: last.join("\n") };
  }
  return { fallen: now?.name, last: last.join("\n") };
}

async function* linesOf(bytes: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const part of bytes.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + part).split(/\r*\n/);
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest) yield rest;
}
