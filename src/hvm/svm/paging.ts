/** Nested page tables of SVM: the format of their entries, and looks through them. */
import { NESTED_KIND, NESTED_ROOT } from "../../machine/svm/layout.ts";
import { machineAddress, type Nested, nestedEntries } from "../guest_memory.ts";
import type { NestedFormat } from "../ops.ts";
import { F, type SvmVcpu } from "./cpu.ts";

const NX = 1n << 63n;
/** The tables are those of a host in long mode with no-execute pages, as this one is. */
const ROOT_FLAGS = NESTED_ROOT.inUse | NESTED_ROOT.nxe | NESTED_KIND.long << NESTED_ROOT.kindShift;

/**
 * Entries of nested page tables: those of the host's long mode, seen as user accesses (APM 2 15.25.5).
 * There is no right to read alone that could be withheld.
 */
export const nptFormat: NestedFormat = {
  table: (address) => BigInt(address) | 7n,
  page: (address, { read, write, execute }) =>
    read ? BigInt(address) | 5n | (write ? 2n : 0n) | (execute ? 0n : NX) : 0n,
  pointer: (root) => BigInt(root) | BigInt(ROOT_FLAGS),
  address: (entry) => entry & 1n ? Number(entry & 0x000f_ffff_ffff_f000n) : undefined,
};

/** The nested tables, if there are any: a shadowed guest has them for the emulator. */
export function nestedOf(v: SvmVcpu): Nested {
  const has = v.shadowed || v.words[F.nestedControl >> 2] & 1;
  const root = has ? v.words[F.nestedCr3 >> 2] >>> 0 : undefined;
  return { memory: v.on.cpu.machine, format: nptFormat, root };
}

/** What the nested tables allow at a guest-physical address: bits 0 read, 1 write, 2 execute. */
export function nestedRights(v: SvmVcpu, gpa: number): number {
  return nestedEntries(nestedOf(v), gpa).reduce((rights, entry) => {
    const present = Number(entry & 1n), write = Number(entry & 2n);
    return rights & (present ? 1 | write | (entry & NX ? 0 : 4) : 0);
  }, 7);
}

/** Machine address of a guest-physical one; -1 without `bytes` there. */
export function guestMachine(v: SvmVcpu, gpa: number, bytes: number): number {
  return machineAddress(nestedOf(v), gpa, bytes);
}
