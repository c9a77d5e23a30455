/**
 * A look at a guest's memory as its page tables map it: for what the hardware does not report about
 * an instruction that has just left. Rights are not looked at; nothing is changed.
 */
import { CR4 } from "../abi/x86/cr.ts";
import type { Machine } from "../machine/machine.ts";
import {
  ADDRESS,
  ENTRY,
  frameOf,
  indexOf,
  MODES,
  PAGING,
  pagingOf,
  POINTER_TABLE,
  shiftOf,
} from "../machine/mmu/modes.ts";
import type { NestedFormat } from "./ops.ts";

/** Nested tables, or none: then guest-physical addresses are machine's. */
export interface Nested {
  readonly memory: Pick<Machine, "ram" | "words" | "size">;
  readonly format: NestedFormat;
  readonly root: number | undefined;
}

/** Nested tables are those of this mode (SDM 3 28.2.2, APM 2 15.25). */
const NESTED = MODES[PAGING.fourLevel];
/** Bits 36 to 51 of an entry: no address has them. */
const NO_ADDRESS = 0xf_fff0;

const lowWord = (value: bigint): number => Number(BigInt.asIntN(32, value));

/** Entries of the nested walk of a guest-physical address, the last one a page's or absent. */
export function nestedEntries({ memory, format, root }: Nested, gpa: number): readonly bigint[] {
  const entries: bigint[] = [], { words } = memory;
  for (let level: number = NESTED.levels, table = root!; level > 0; level--) {
    const index = indexOf(NESTED, level, gpa | 0, Math.floor(gpa / 2 ** 32));
    const at = table + NESTED.bytes * index;
    if (at + NESTED.bytes > memory.size) break;
    const [low, high] = [words[at >>> 2], words[(at >>> 2) + 1]];
    const entry = BigInt(high >>> 0) << 32n | BigInt(low >>> 0), next = format.address(entry);
    entries.push(entry);
    if (next === undefined || (NESTED.large[level] && low & ENTRY.PS)) break;
    table = next;
  }
  return entries;
}

/** Machine address of a guest-physical one; -1 if there is no memory of `bytes` there. */
export function machineAddress(nested: Nested, gpa: number, bytes: number): number {
  const { memory, format, root } = nested;
  let machine = gpa;
  if (root !== undefined) {
    const entries = nestedEntries(nested, gpa), level = NESTED.levels + 1 - entries.length;
    const base = format.address(entries.at(-1) ?? 0n), size = 2 ** shiftOf(NESTED, level);
    if (base === undefined || level === NESTED.levels) return -1;
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
  const low = lowWord(linear), high = lowWord(linear >> 32n);
  const mode = MODES[pagingOf(lowWord(cr0), lowWord(cr4), lowWord(efer))];
  if (mode.levels === 0) return low >>> 0;
  const { words } = nested.memory;
  /** The words of an entry that is there. */
  const read = (address: number): readonly [low: number, high: number] | undefined => {
    const at = machineAddress(nested, address, mode.bytes) / 4;
    if (at < 0) return undefined;
    const entry = [words[at], mode.bytes === 8 ? words[at + 1] : 0] as const;
    return entry[0] & ENTRY.P && !(entry[1] & NO_ADDRESS) ? entry : undefined;
  };
  let table = Number(cr3 & (mode.pointers ? POINTER_TABLE : ADDRESS));
  if (mode.pointers) {
    const pointer = read(table + mode.bytes * (low >>> 30));
    if (!pointer) return -1;
    table = frameOf(mode, 1, ...pointer, 0) * 4096;
  }
  const large = mode.bytes === 8 || (lowWord(cr4) & CR4.PSE) !== 0;
  for (let level: number = mode.levels;; level--) {
    const entry = read(table + mode.bytes * indexOf(mode, level, low, high));
    if (!entry) return -1;
    if (level === 1 || (large && mode.large[level] && entry[0] & ENTRY.PS)) {
      return frameOf(mode, level, ...entry, low) * 4096 + (low & 4095);
    }
    table = frameOf(mode, 1, ...entry, 0) * 4096;
  }
}

/** Bytes at a linear address, as many of `length` as there is memory for. */
export function readLinear(
  nested: Nested,
  paging: PagingRegisters,
  linear: bigint,
  length: number,
): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let n = 0; n < length;) {
    const gpa = guestPhysical(nested, paging, linear + BigInt(n));
    const at = gpa < 0 ? -1 : machineAddress(nested, gpa, 1);
    if (at < 0) return bytes.subarray(0, n);
    const page = nested.memory.ram.subarray(at, at + 4096 - at % 4096);
    bytes.set(page.subarray(0, length - n), n);
    n += page.length;
  }
  return bytes;
}
