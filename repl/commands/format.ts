/**
 * How commands print addresses, code and bytes.
 *
 * @module
 */
import type { BreakpointView, Context, DomainView, Line, StopView, VcpuView } from "../context.ts";

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

/** Lines of disassembly, in columns; `=>` marks the next to execute. */
export function codeLines(lines: readonly Line[], vcpu: VcpuView, context: Context): string {
  const places = lines.map((it) => {
    const symbol = symbolAt(it.address, context);
    return `${hex(it.address, Math.max(32, vcpu.bits))}${symbol ? ` ${symbol}` : ""}:`;
  });
  const width = Math.max(...places.map((it) => it.length));
  const next = nextAddress(vcpu);
  const codes = lines.map(({ bytes }) =>
    Array.from(bytes, (it) => it.toString(16).padStart(2, "0")).join(" ")
  );
  const codeWidth = Math.max(20, ...codes.map((it) => it.length));
  return lines.map(({ address, text }, i) => {
    const here = address === next ? "=>" : "  ";
    return `${here} ${places[i].padEnd(width)}  ${
      dim(codes[i].padEnd(codeWidth), context)
    } ${text}\n`;
  }).join("");
}

/** Linear address of the next instruction: RIP, and the segment's base below 64 bits. */
export function nextAddress(vcpu: VcpuView): bigint {
  if (vcpu.bits === 64) return vcpu.regs.rip;
  const base = vcpu.regs.segments?.cs?.base ?? 0n;
  return BigInt.asUintN(32, base + vcpu.regs.rip);
}

/** Where a vCPU stands: the instruction it would execute next, and why it stopped. */
export function printStop(stop: StopView | null, context: Context): void {
  if (!stop) {
    context.print(`${context.domain().name} is paused; c continues\n`);
    return printHere(context.vcpu(), context);
  }
  const { kind, vcpu } = stop, domain = vcpu.domain ?? context.domain();
  if (kind !== "end") context.select(domain, vcpu.id);
  if (kind !== "step") context.print(`${context.show(stop)}\n`);
  else if (domain.vcpus.length > 1) context.print(`vCPU ${vcpu.id}\n`);
  printHere(vcpu, context);
  if (kind !== "step" && kind !== "end") printOthers(vcpu, domain, context);
}

/** So many are shown where they stand. */
const OTHERS = 3;

/** Where the other vCPUs of the domain stand. */
function printOthers({ id }: VcpuView, { vcpus }: DomainView, context: Context): void {
  const others = vcpus.filter((vcpu) => vcpu.id !== id);
  for (const { id, runstate, place } of others.slice(0, OTHERS)) {
    context.print(dim(`   vCPU ${id} ${runstate} at ${place}\n`, context));
  }
  const more = others.length - OTHERS;
  if (more > 0) context.print(dim(`   ${more} more: dom.vcpus shows all\n`, context));
}

/** The instruction a vCPU would execute next. */
export function printHere(vcpu: VcpuView, context: Context): void {
  let lines: Line[] = [];
  try {
    lines = vcpu.disassemble(undefined, 1);
  } catch (error) {
    context.print(`=> ${hex(vcpu.regs.rip, 32)}: ${(error as Error).message}\n`);
  }
  if (lines.length) context.print(codeLines(lines, vcpu, context));
}

/** A filter as one types it: `cr=3 write !read`. */
export function filterText(filter: Record<string, unknown>, context: Context): string {
  const value = (it: unknown): string => {
    if (typeof it === "bigint") return hex(it, 32);
    if (Array.isArray(it)) return it.map(value).join("-");
    return typeof it === "number" && it > 9 ? `0x${it.toString(16)}` : String(it);
  };
  return Object.entries(filter).map(([key, it]) => {
    if (typeof it === "boolean") return it ? key : `!${key}`;
    const symbol = key === "address" && typeof it === "bigint" ? symbolAt(it, context) : "";
    return `${key}=${value(it)}${symbol && ` ${symbol}`}`;
  }).join(" ");
}

/** What a breakpoint waits for, as one types it. */
export function breakpointText(it: BreakpointView, context: Context): string {
  const condition = it.condition ? ` if ${it.condition}` : "";
  return `${it.kind} ${filterText(it.filter, context)}`.trimEnd() + condition;
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
