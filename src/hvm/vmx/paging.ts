/** Extended page tables: the format of their entries, and how they read. */
import { MEMORY_TYPE } from "../../abi/x86/msr.ts";
import { EPTP } from "../../abi/x86/vmx.ts";
import { machineAddress } from "../guest_memory.ts";
import type { NestedFormat } from "../ops.ts";
import { F, type VmxVcpu } from "./cpu.ts";

const MEMORY_TYPES: Readonly<Record<number, string>> = {
  [MEMORY_TYPE.UC]: "uncacheable",
  [MEMORY_TYPE.WC]: "write-combining",
  [MEMORY_TYPE.WT]: "write-through",
  [MEMORY_TYPE.WP]: "write-protected",
  [MEMORY_TYPE.WB]: "write-back",
};
const WRITE_BACK = BigInt(MEMORY_TYPE.WB << 3);

/** An entry's flags in words. */
function eptFlags(entry: bigint, level: number): string[] {
  const low = Number(entry & 0xfffn);
  if (!(low & 7)) return ["not present"];
  const flags = [["read", 1], ["write", 2], ["execute", 4]] as const;
  const words: string[] = flags.filter(([, bit]) => low & bit).map(([name]) => name);
  const large = level > 1 && low & 0x80;
  if (large) words.push("large");
  if (level === 1 || large) {
    words.push(MEMORY_TYPES[low >> 3 & 7] ?? `memory type ${low >> 3 & 7}`);
    if (low & 0x40) words.push("ignore-PAT");
    if (low & 0x200) words.push("dirty");
  }
  if (low & 0x100) words.push("accessed");
  return words;
}

/** EPT entries (SDM 3 28.3.2): read 0, write 1, execute 2, memory type write-back in 5:3. */
export const eptFormat: NestedFormat = {
  table: (address) => BigInt(address) | 7n,
  page: (address, { read, write, execute }) =>
    BigInt(address) | WRITE_BACK | (read ? 1n : 0n) | (write ? 2n : 0n) | (execute ? 4n : 0n),
  // No accessed and dirty flags.
  pointer: (root) => BigInt(root) | BigInt(EPTP.writeBack | EPTP.walk4),
  flags: eptFlags,
  address: (entry) => entry & 7n ? Number(entry & 0x000f_ffff_ffff_f000n) : undefined,
};

/** Machine address of a guest-physical one; -1 without `bytes` there. */
export function guestMachine(v: VmxVcpu, gpa: number, bytes: number): number {
  const { on } = v, root = Number(on.read64(F.eptPointer) & ~0xfffn);
  return machineAddress({ memory: on.cpu.machine, format: eptFormat, root }, gpa, bytes);
}
