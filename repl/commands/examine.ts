import { CommandError, type Context, type MemoryView } from "../context.ts";
import type { Call, Command } from "./command.ts";
import { SIZES } from "./edit.ts";
import { codeLines, hex, symbolAt } from "./format.ts";
import { address } from "./parse.ts";

const FORMATS = "xduotcsia";

interface Format {
  count: number;
  format: string;
  size: number;
}

export const examine: Command = {
  name: "x",
  aliases: ["xp"],
  usage: "x/NFS ADDRESS   xp/NFS ADDRESS",
  summary: "Examine memory: x/16xg ADDRESS; xp for guest-physical",
  help: `N is a count; F one of x (hexadecimal), d, u, o, t (binary), c (characters), s (strings),
i (instructions), a (addresses with symbols); S one of b, h, w, g (1, 2, 4, 8 bytes). What is left out
is as the last time. Without an address, and with Enter, it goes on where it stopped.

  x/16xg rsp
  x/8i start_kernel
  x/s 0xc0300000
  xp/4xw 0x100000

API: vcpu.memory.read(address, length), dom.memory.read(address, length)`,
  repeat: "x",
  async run(call, context) {
    const state = remembered(call.name, context);
    const format = parseFormat(call.suffix, state.format);
    const at = call.rest ? await address(call.rest, context) : state.next;
    if (at === undefined) throw new CommandError(`${call.name}: an address is missing`);
    const next = dump(at, format, call, context);
    context.memory.set("x", { name: call.name, format, next });
  },
};

function remembered(name: string, context: Context): { format: Format; next?: bigint } {
  const last = context.memory.get("x") as
    | { name: string; format: Format; next: bigint }
    | undefined;
  const fresh = { count: 8, format: "x", size: 4 };
  return last
    ? { format: last.format, next: last.name === name ? last.next : undefined }
    : { format: fresh };
}

/** `16xg`, with what is missing taken from `last`. */
export function parseFormat(text: string, last: Format): Format {
  if (!text) return last;
  const [, digits, letters] = text.match(/^(\d*)([a-z]*)$/)!;
  const result = { ...last, count: digits ? Number(digits) : 1 };
  for (const letter of letters) {
    if (SIZES[letter]) result.size = SIZES[letter];
    else if (FORMATS.includes(letter)) result.format = letter;
    else {
      throw new CommandError(
        `x/${text}: "${letter}" is neither a format (${
          [...FORMATS].join(" ")
        }) nor a size (b h w g)`,
      );
    }
  }
  if (result.format === "c") result.size = 1;
  if (result.format === "a" && !/[bhwg]/.test(letters)) result.size = 8;
  if (result.count < 1 || result.count > 1_000_000) {
    throw new CommandError(`x/${text}: the count is ${result.count}; it has to be 1 to 1000000`);
  }
  return result;
}

function dump(at: bigint, format: Format, { name }: Call, context: Context): bigint {
  if (format.format === "i") return instructions(at, format.count, context);
  const memory = name === "xp" ? context.domain().memory : context.vcpu().memory;
  if (format.format === "s") return strings(at, format.count, memory, context);
  const { count, size } = format;
  const bytes = memory.read(at, count * size);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const across = format.format === "a" ? 1 : Math.max(1, 16 / size);
  const bits = context.vcpu().bits === 64 || at > 0xffff_ffffn ? 64 : 32;
  for (let i = 0; i < count; i += across) {
    const place = at + BigInt(i * size);
    const items: string[] = [];
    for (let j = i; j < Math.min(count, i + across); j++) {
      items.push(item(view, j * size, format, context));
    }
    const symbol = name === "xp" ? "" : symbolAt(place, context);
    const where = `${hex(place, bits)}${symbol && ` ${symbol}`}:`;
    if (size === 1 && format.format === "x") {
      const codes = items.map((it) => it.slice(2)).join(" ").padEnd(
        Math.min(count, across) * 3 - 1,
      );
      context.print(`${where}  ${codes}  ${printable(bytes.subarray(i, i + across))}\n`);
    } else context.print(`${where}  ${items.join("  ")}\n`);
  }
  return at + BigInt(count * size);
}

function item(view: DataView, offset: number, { format, size }: Format, context: Context): string {
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) value = value << 8n | BigInt(view.getUint8(offset + i));
  const bits = size * 8;
  switch (format) {
    case "d":
      return String(BigInt.asIntN(bits, value)).padStart(bits * 0.31 + 2);
    case "u":
      return String(value).padStart(bits * 0.31 + 1);
    case "o":
      return `0${value.toString(8)}`;
    case "t":
      return value.toString(2).padStart(bits, "0");
    case "c":
      return `${value} ${JSON.stringify(String.fromCharCode(Number(value)))}`.padEnd(10);
    case "a":
      return `${hex(value, bits)} ${symbolAt(value, context)}`.trimEnd();
    default:
      return hex(value, bits);
  }
}

function printable(bytes: Uint8Array): string {
  return Array.from(bytes, (it) => it >= 0x20 && it < 0x7f ? String.fromCharCode(it) : ".").join(
    "",
  );
}

function instructions(at: bigint, count: number, context: Context): bigint {
  const vcpu = context.vcpu();
  const lines = vcpu.disassemble(at, count);
  if (lines.length) context.print(codeLines(lines, vcpu, context));
  const last = lines.at(-1);
  return last ? last.address + BigInt(last.bytes.length) : at;
}

const LONGEST_STRING = 4096;

function strings(at: bigint, count: number, memory: MemoryView, context: Context): bigint {
  for (let i = 0; i < count; i++) {
    const bytes: number[] = [];
    for (let end = false; !end && bytes.length < LONGEST_STRING;) {
      const [byte] = memory.read(at + BigInt(bytes.length), 1);
      end = byte === 0;
      if (!end) bytes.push(byte);
    }
    const text = new TextDecoder("latin1").decode(new Uint8Array(bytes));
    context.print(`${hex(at, 32)}:  ${JSON.stringify(text)}\n`);
    at += BigInt(bytes.length + 1);
  }
  return at;
}
