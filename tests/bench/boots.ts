/** A Debian kernel's boot on every machine: wall and CPU seconds to GUEST-READY and GUEST-DONE, and memory. */
import { guestsFolder } from "../../repl/guests/images.ts";
import { figure, measure, median, table } from "./measure.ts";
import type { Machine } from "./machines.ts";

const MARKS = ["GUEST-READY", "GUEST-DONE"] as const;
const MEMORY = 128;

/** Medians of one machine over `runs` boots; seconds and bytes. */
export interface BootResult {
  readonly machine: string;
  readonly own: boolean;
  readonly runs: number;
  readonly readyWall: number;
  readonly readyCpu: number;
  readonly doneWall: number;
  readonly doneCpu: number;
  /** Peak resident memory of the process. */
  readonly peak: number;
  /** The same less the guest's memory. */
  readonly beside: number;
}

/** Boots in turns, so that a disturbance hits all machines alike. */
export async function boots(
  machines: readonly Machine[],
  runs: number,
  kernel: string,
): Promise<BootResult[]> {
  const folder = guestsFolder();
  const long = /amd64|cloud/.test(kernel);
  const boot = {
    kernel: `${folder}/${kernel}`,
    ramdisk: `${folder}/tiny-${long ? "amd64" : "i386"}.cpio.gz`,
    long,
    cmdline: "console=ttyS0 nokaslr mitigations=off cryptomgr.notests noisapnp quiet",
    memory: MEMORY,
  };
  await Promise.all([boot.kernel, boot.ramdisk].map((file) => Deno.stat(file)));
  const samples = new Map<Machine, Awaited<ReturnType<typeof measure>>[]>();
  for (let run = 0; run < runs; run++) {
    for (const machine of machines) {
      const command = machine.command(boot, MARKS[1]);
      if (!command) continue;
      const measured = await measure({ command, marks: MARKS, timeout: 300, ends: machine.own });
      samples.set(machine, [...samples.get(machine) ?? [], measured]);
    }
  }
  return [...samples].map(([machine, all]) => {
    const of = (mark: number, what: "wall" | "cpu" | "peak") =>
      median(all.map((sample) => sample.marks[mark][what]));
    return {
      machine: machine.name,
      own: machine.own,
      runs: all.length,
      readyWall: of(0, "wall"),
      readyCpu: of(0, "cpu"),
      doneWall: of(1, "wall"),
      doneCpu: of(1, "cpu"),
      peak: of(1, "peak"),
      beside: of(1, "peak") - MEMORY * 2 ** 20,
    };
  });
}

/** The boots as a table, with the ratio of our CPU time to each peer's. */
export function showBoots(results: readonly BootResult[]): string {
  const mega = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
  const peers = results.filter((r) => !r.own);
  const heading = ["machine", "n", "READY s", "cpu", "DONE s", "cpu", "peak MB", "beside MB"];
  const rows = results.map((r) => [
    r.machine,
    r.runs,
    figure(r.readyWall),
    figure(r.readyCpu),
    figure(r.doneWall),
    figure(r.doneCpu),
    mega(r.peak),
    mega(r.beside),
    ...peers.map((peer) => r.own ? figure(r.doneCpu / peer.doneCpu) : ""),
  ]);
  return table([[...heading, ...peers.map((p) => `cpu / ${p.machine}`)], ...rows]);
}
