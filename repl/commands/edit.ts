import { CommandError, type Context } from "../context.ts";
import type { Command } from "./command.ts";
import { hex } from "./format.ts";
import { address } from "./parse.ts";

/** Sizes by gdb's letters. */
export const SIZES: Record<string, number> = { b: 1, h: 2, w: 4, g: 8 };

export const edit: Command = {
  name: "e",
  aliases: ["ep"],
  usage: "e/S ADDRESS VALUE…   ep/S ADDRESS VALUE…",
  summary: "Write memory: e/w ADDRESS VALUE…; ep for guest-physical",
  help:
    `Writes values of S bytes (b, h, w, g: 1, 2, 4, 8; b if not given), one after the other, little-endian.
A word in double quotes is written as its characters.

  e/w 0xc0300000 1 2
  e rip 0x90 0x90
  ep/b 0xb8000 "A"

API: vcpu.memory.write(address, bytes), dom.memory.write(address, bytes)`,
  async run({ name, suffix, words: [where, ...values] }, context) {
    if (!where || values.length === 0) {
      throw new CommandError(`${name}: an address and at least one value are needed`);
    }
    const size = SIZES[suffix || "b"];
    if (!size) throw new CommandError(`${name}/${suffix}: the size is one of b, h, w, g`);
    const at = await address(where, context);
    const bytes: number[] = [];
    for (const value of values) bytes.push(...await bytesOf(value, size, context));
    const memory = name === "ep" ? context.domain().memory : context.vcpu().memory;
    memory.write(at, new Uint8Array(bytes));
    context.print(`${bytes.length} byte${bytes.length > 1 ? "s" : ""} written at ${hex(at, 32)}\n`);
  },
};

/** The bytes of a value as commands write it: characters in quotes, or a number of `size` bytes. */
export async function bytesOf(text: string, size: number, context: Context): Promise<number[]> {
  if (/^".*"$/.test(text)) return [...new TextEncoder().encode(JSON.parse(text))];
  const value = await address(text, context);
  const wrapped = BigInt.asUintN(size * 8, value);
  if (wrapped !== value && BigInt.asIntN(size * 8, value) !== value) {
    throw new CommandError(`${text} does not fit in ${size} byte${size > 1 ? "s" : ""}`);
  }
  return Array.from({ length: size }, (_, i) => Number(wrapped >> BigInt(i * 8) & 0xffn));
}
