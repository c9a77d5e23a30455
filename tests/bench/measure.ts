/** Processes timed from outside: wall time and the CPU time of the whole tree at marks in their output. */

/** What is known of a process when a mark appeared in its output. */
export interface Mark {
  readonly text: string;
  /** Seconds since its start. */
  readonly wall: number;
  /** User and system seconds of it and its descendants. */
  readonly cpu: number;
  /** Greatest resident memory so far in bytes, of the process itself. */
  readonly peak: number;
}

/** A program and the marks to wait for, in order. */
export interface Program {
  readonly command: readonly string[];
  readonly marks: readonly string[];
  /** Wait for its own end after the last mark; otherwise it is killed there. */
  readonly ends?: boolean;
  /** Seconds after which it is given up. */
  readonly timeout: number;
}

/** What a program did. */
export interface Measured {
  readonly marks: readonly Mark[];
  readonly stdout: string;
  readonly stderr: string;
}

const TICKS_PER_SECOND = 100;

/** CPU seconds of a process and its live descendants; ended children count with their parents. */
function treeCpu(root: number): number {
  const children = new Map<number, number[]>();
  const ticks = new Map<number, number>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      // After the name in parentheses: state, parent, ..., utime, stime, cutime, cstime.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number);
      const parent = fields[1];
      children.set(parent, [...children.get(parent) ?? [], Number(name)]);
      ticks.set(Number(name), fields[11] + fields[12] + fields[13] + fields[14]);
    } catch { /* it ended meanwhile */ }
  }
  const sum = (pid: number): number =>
    (ticks.get(pid) ?? 0) + (children.get(pid) ?? []).reduce((all, child) => all + sum(child), 0);
  return sum(root) / TICKS_PER_SECOND;
}

function peakMemory(pid: number): number {
  const line = /^VmHWM:\s+(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`));
  return Number(line?.[1] ?? 0) * 1024;
}

/**
 * Runs a program until its last mark.
 *
 * @throws {Error} naming the mark that did not come, with the end of its output.
 */
export async function measure(program: Program): Promise<Measured> {
  const [file, ...args] = program.command;
  const started = performance.now();
  const child = new Deno.Command(file, {
    args,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const stderr = new Response(child.stderr).text();
  const timer = setTimeout(() => child.kill("SIGKILL"), program.timeout * 1000);
  const marks: Mark[] = [];
  let stdout = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    stdout += chunk;
    while (marks.length < program.marks.length && stdout.includes(program.marks[marks.length])) {
      const wall = (performance.now() - started) / 1000;
      marks.push({
        text: program.marks[marks.length],
        wall,
        cpu: treeCpu(child.pid),
        peak: peakMemory(child.pid),
      });
    }
    if (marks.length === program.marks.length && !program.ends) child.kill("SIGKILL");
  }
  await child.status;
  clearTimeout(timer);
  const errors = await stderr;
  if (marks.length < program.marks.length) {
    throw new Error(
      `${program.command.join(" ")}: "${program.marks[marks.length]}" did not appear in ` +
        `${program.timeout} s or before its end: ${(stdout + errors).slice(-500)}`,
    );
  }
  return { marks, stdout, stderr: errors };
}

/** The middle value, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Rows under a heading, columns padded. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const cells = rows.map((row) => row.map(String));
  const width = (column: number) => Math.max(...cells.map((row) => (row[column] ?? "").length));
  return cells.map((row) => row.map((cell, i) => cell.padEnd(width(i))).join("  ").trimEnd())
    .join("\n");
}

/** A number with a sensible count of digits. */
export const figure = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
