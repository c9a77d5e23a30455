/**
 * How commands print addresses, code and bytes.
 *
 * @module
 */
import type { Context, Line, StopView, VcpuView } from "../context.ts";

/** `0xc0100000`, as many digits as the code is wide. */
export function hex(value: bigint, bits: number): string {
  return `0x${BigInt.asUintN(64, value).toString(16).padStart(bits / 4, "0")}`;
}

/** `<start_kernel+0x10>`, or nothing where no symbol is known. */
export function symbolAt(address: bigint, context: Context): string {
  const found = context.domain().symbols?.nearest(address);
  if (!found) return "";
  return `<${found.name}${found.offset ? `+0x${found.offset.toString(16)}` : ""}>`;
}

const dim = (text: string, context: Context) => context.colors ? `\x1b[2m${text}\x1b[22m` : text;

/** One line of disassembly. */
export function codeLine(line: Line, vcpu: VcpuView, context: Context): string {
  const here = line.address === vcpu.regs.rip ? "=>" : "  ";
  const bytes = Array.from(line.bytes, (it) => it.toString(16).padStart(2, "0")).join(" ");
  const symbol = symbolAt(line.address, context);
  const place = `${hex(line.address, Math.max(32, vcpu.bits))}${symbol ? ` ${symbol}` : ""}`;
  return `${here} ${place}:  ${dim(bytes.padEnd(24), context)} ${line.text}`;
}

/** Where a vCPU stands: the instruction it would execute next, and why it stopped. */
export function printStop(stop: StopView | null, context: Context): void {
  if (!stop) return context.print("interrupted; the domain is paused\n");
  if (stop.kind !== "step") context.print(`${context.show(stop)}\n`);
  printHere(stop.vcpu, context);
}

/** The instruction a vCPU would execute next. */
export function printHere(vcpu: VcpuView, context: Context): void {
  let lines: Line[] = [];
  try {
    lines = vcpu.disassemble(undefined, 1);
  } catch (error) {
    context.print(`=> ${hex(vcpu.regs.rip, 32)}: ${(error as Error).message}\n`);
  }
  for (const line of lines) context.print(`${codeLine(line, vcpu, context)}\n`);
}

/** Rows as a table with a head; numbers to the right. */
export function table(head: string[], rows: (string | number | bigint)[][]): string {
  const cells = [head, ...rows.map((row) => row.map(String))];
  const widths = head.map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  const numeric = head.map((_, i) =>
    rows.length > 0 && rows.every((row) => typeof row[i] !== "string")
  );
  return cells.map((row) =>
    row.map((cell, i) => numeric[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))
      .join("  ").trimEnd()
  ).join("\n");
}
