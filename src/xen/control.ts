/** What writes to control registers must not do: the rules for those that leave the guest (SDM 2, MOV CR). */
import type { HvmEngine } from "./hvm.ts";

const CR0_PE = 1n, CR0_NW = 1n << 29n, CR0_CD = 1n << 30n, CR0_PG = 1n << 31n;
const CR4_PSE = 0x10n, CR4_PAE = 0x20n, CR4_PGE = 0x80n, CR4_PCIDE = 0x2_0000n;
const CR4_SMEP = 0x10_0000n;
const EFER = 0xc000_0080, LME = 0x100n, LMA = 0x400n;
const LONG = 0x2000;
/** MAXPHYADDR of the machine. */
const ADDRESS_BITS = 36n;

/** EFER.LMA and CS.L. */
export const in64BitMode = (e: HvmEngine): boolean =>
  (e.ops.getMsr(e.vcpu, EFER)! & LMA) !== 0n &&
  (e.ops.getSegment(e.vcpu, "cs").attributes & LONG) !== 0;

/** The write of CR0 is a #GP(0). */
export function cr0Faults(e: HvmEngine, old: bigint, value: bigint): boolean {
  if (value >> 32n || (value & CR0_PG && !(value & CR0_PE))) return true;
  if (value & CR0_NW && !(value & CR0_CD)) return true;
  const cr4 = e.ops.getCr(e.vcpu, 4), efer = e.ops.getMsr(e.vcpu, EFER)!;
  if (old & ~value & CR0_PG) return in64BitMode(e) || (cr4 & CR4_PCIDE) !== 0n;
  if (!(value & CR0_PG)) return false;
  const turnedOn = !(old & CR0_PG);
  if (turnedOn && efer & LME) {
    return !(cr4 & CR4_PAE) || (e.ops.getSegment(e.vcpu, "cs").attributes & LONG) !== 0;
  }
  const reloads = turnedOn || ((old ^ value) & (CR0_CD | CR0_NW)) !== 0n;
  return reloads && (cr4 & CR4_PAE) !== 0n && !(efer & LMA) && pdptesFault(e);
}

/** The write of CR4 is a #GP(0). */
export function cr4Faults(e: HvmEngine, old: bigint, value: bigint): boolean {
  if (value & ~BigInt(e.cpuid.cr4Valid >>> 0)) return true;
  const long = (e.ops.getMsr(e.vcpu, EFER)! & LMA) !== 0n;
  if (long && !(value & CR4_PAE)) return true;
  if (value & ~old & CR4_PCIDE) return !long || (e.ops.getCr(e.vcpu, 3) & 0xfffn) !== 0n;
  const reloads = (old ^ value) & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP);
  const paging = (e.ops.getCr(e.vcpu, 0) & CR0_PG) !== 0n;
  return reloads !== 0n && paging && !long && (value & CR4_PAE) !== 0n && pdptesFault(e);
}

/** The write of CR3 is a #GP(0). */
export function cr3Faults(e: HvmEngine, value: bigint): boolean {
  const cr4 = e.ops.getCr(e.vcpu, 4);
  const address = cr4 & CR4_PCIDE ? value & ~(1n << 63n) : value;
  if (address >> ADDRESS_BITS) return true;
  const pae = (cr4 & CR4_PAE) !== 0n && (e.ops.getCr(e.vcpu, 0) & CR0_PG) !== 0n;
  return pae && !(e.ops.getMsr(e.vcpu, EFER)! & LMA) && pdptesFault(e, value);
}

/** One of the four pointers that CR3 leads to is present with a reserved bit set (SDM 3 4.4.1). */
function pdptesFault(e: HvmEngine, value = e.ops.getCr(e.vcpu, 3)): boolean {
  const cr3 = Number(value & 0xffff_ffe0n);
  const frame = e.p2m.machineFrame(e.p2m.canonical(Math.floor(cr3 / 4096)));
  // The emulator and the hardware read ones where there is no memory.
  if (frame < 0) return true;
  const { words } = e.p2m.machine, at = frame * 1024 + (cr3 % 4096 >> 2);
  for (let n = 0; n < 4; n++) {
    const low = words[at + 2 * n], high = words[at + 2 * n + 1];
    if (low & 1 && (low & 0x1e6 || high >>> Number(ADDRESS_BITS) - 32)) return true;
  }
  return false;
}
