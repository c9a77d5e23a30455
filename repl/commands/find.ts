import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";
import { bytesOf, SIZES } from "./edit.ts";
import { hex } from "./format.ts";
import { address, wordsOf } from "./parse.ts";

export const find: Command = {
  name: "find",
  aliases: ["findp"],
  usage: "find/S ADDRESS LENGTH VALUE…",
  summary: "Search memory for values or a text; findp for guest-physical",
  help:
    `Looks at LENGTH bytes from ADDRESS, and prints where the values (as for e) stand, at most 100 places.

  find/w 0xc0000000 0x100000 0x464c457f
  findp 0 0x100000 "RSD PTR "

API: vcpu.memory.read(address, length)`,
  async run({ name, suffix, rest }, context) {
    const [where, length, ...values] = wordsOf(rest);
    if (!where || !length || values.length === 0) {
      throw new CommandError(`${name}: an address, a length and at least one value are needed`);
    }
    const size = SIZES[suffix || "b"];
    if (!size) throw new CommandError(`${name}/${suffix}: the size is one of b, h, w, g`);
    const wanted: number[] = [];
    for (const value of values) wanted.push(...await bytesOf(value, size, context));
    const at = await address(where, context);
    const memory = name === "findp" ? context.domain().memory : context.vcpu().memory;
    const places = search(memory.read(at, Number(await address(length, context))), wanted, 100);
    for (const place of places) context.print(`${hex(at + BigInt(place), 32)}\n`);
    if (places.length === 0) context.print("not found\n");
  },
};

function search(bytes: Uint8Array, wanted: number[], limit: number): number[] {
  const places: number[] = [];
  for (let at = bytes.indexOf(wanted[0]); at >= 0; at = bytes.indexOf(wanted[0], at + 1)) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) places.push(at);
    if (places.length === limit) break;
  }
  return places;
}
