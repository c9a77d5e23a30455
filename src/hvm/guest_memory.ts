/**
 * A look at a guest's memory as its page tables map it: for what the hardware does not report about
 * an instruction that has just left. Rights are not looked at; nothing is changed.
 */
import type { Machine } from "../machine/machine.ts";
import type { NestedFormat } from "./ops.ts";

const ADDRESS = 0x000f_ffff_ffff_f000n, LARGE = 0x80n;

/** Nested tables, or none: then guest-physical addresses are machine's. */
export interface Nested {
  readonly memory: Pick<Machine, "ram" | "size">;
  readonly format: NestedFormat;
  readonly root: number | undefined;
}

function read64(ram: Uint8Array, at: number): bigint {
  return new DataView(ram.buffer, ram.byteOffset + at).getBigUint64(0, true);
}
function read32(ram: Uint8Array, at: number): bigint {
  return BigInt(new DataView(ram.buffer, ram.byteOffset + at).getUint32(0, true));
}

/** Entries of the nested walk of a guest-physical address, the last one a page's or absent. */
export function nestedEntries({ memory, format, root }: Nested, gpa: number): readonly bigint[] {
  const entries: bigint[] = [];
  for (let level = 4, table = root!; level > 0; level--) {
    const at = table + Math.floor(gpa / 2 ** (12 + 9 * (level - 1))) % 512 * 8;
    if (at + 8 > memory.size) break;
    const entry = read64(memory.ram, at), next = format.address(entry);
    entries.push(entry);
    if (next === undefined || (level < 4 && entry & LARGE)) break;
    table = next;
  }
  return entries;
}

/** Machine address of a guest-physical one; -1 if there is no memory of `bytes` there. */
export function machineAddress(nested: Nested, gpa: number, bytes: number): number {
  const { memory, format, root } = nested;
  let machine = gpa;
  if (root !== undefined) {
    const entries = nestedEntries(nested, gpa);
    const base = format.address(entries.at(-1) ?? 0n);
    const size = 2 ** (12 + 9 * (4 - entries.length));
    if (base === undefined || size > 2 ** 30) return -1;
    machine = base - base % size + gpa % size;
  }
  return machine + bytes <= memory.size ? machine : -1;
}

/** Control registers that say how linear addresses are translated. */
interface PagingRegisters {
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
}

/** Guest-physical address of a linear one, -1 if it has none. */
function guestPhysical(
  nested: Nested,
  { cr0, cr3, cr4, efer }: PagingRegisters,
  linear: bigint,
): number {
  if (!(cr0 & 0x8000_0000n)) return Number(linear & 0xffff_ffffn);
  const long = (efer & 0x400n) !== 0n, wide = long || (cr4 & 0x20n) !== 0n;
  const bits = wide ? 9n : 10n, size = wide ? 8 : 4;
  let table = cr3 & (long || !wide ? ADDRESS : 0xffff_ffe0n);
  for (let level = long ? 4 : wide ? 3 : 2; level > 0; level--) {
    const shift = 12n + bits * BigInt(level - 1);
    const index = (linear & (long ? ~0n : 0xffff_ffffn)) >> shift & ((1n << bits) - 1n);
    const at = machineAddress(nested, Number(table) + size * Number(index), size);
    if (at < 0) return -1;
    const entry = wide ? read64(nested.memory.ram, at) : read32(nested.memory.ram, at);
    if (!(entry & 1n)) return -1;
    const large = level > 1 && level < 4 && entry & LARGE && (wide || cr4 & 0x10n);
    if (level === 1 || large) {
      const within = (1n << shift) - 1n;
      // PSE-36 keeps address bits 39:32 in 20:13.
      const high = large && !wide ? (entry >> 13n & 0xffn) << 32n : 0n;
      return Number(entry & ADDRESS & ~within | high | linear & within);
    }
    table = entry & ADDRESS;
  }
  return -1;
}

/** Bytes at a linear address, as many of `length` as there is memory for. */
export function readLinear(
  nested: Nested,
  paging: PagingRegisters,
  linear: bigint,
  length: number,
): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let n = 0; n < length; n++) {
    const gpa = guestPhysical(nested, paging, linear + BigInt(n));
    const at = gpa < 0 ? -1 : machineAddress(nested, gpa, 1);
    if (at < 0) return bytes.subarray(0, n);
    bytes[n] = nested.memory.ram[at];
  }
  return bytes;
}
