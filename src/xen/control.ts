/** Writes of control registers and EFER that leave the guest, held against the rules. */
import { CR4, EFER } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import {
  breaksRule,
  holdsPdptes,
  LOADS_PDPTES,
  type RuleOperand,
} from "../machine/system/control_rules.ts";
import { POINTER_TABLE } from "../machine/mmu/modes.ts";
import type { HvmEngine } from "./hvm.ts";
import { PDPTE_RESERVED } from "../machine/mmu/modes.ts";

/** MAXPHYADDR of the machine. */
const ADDRESS_BITS = 36n;

const cr = (e: HvmEngine, n: 0 | 3 | 4): number => Number(BigInt.asIntN(32, e.ops.getCr(e.hvm, n)));
const efer = (e: HvmEngine): number => Number(BigInt.asIntN(32, e.ops.getMsr(e.hvm, MSR.EFER)!));
const codeAttributes = (e: HvmEngine): number => e.ops.getSegment(e.hvm, "cs").attributes;

/** A write of CR0, CR4 or EFER is a #GP(0). */
export function writeFaults(
  e: HvmEngine,
  register: "cr0" | "cr4" | "efer",
  old: bigint,
  value: bigint,
): boolean {
  const valid = { cr0: 0xffff_ffff, cr4: e.cpuid.cr4Valid, efer: e.cpuid.eferValid }[register];
  if (value & ~BigInt(valid >>> 0)) return true;
  const was = Number(BigInt.asIntN(32, old)), now = Number(BigInt.asIntN(32, value));
  const operands: Readonly<Record<RuleOperand, () => number>> = {
    now: () => now,
    old: () => was,
    cr0: () => cr(e, 0),
    cr3: () => cr(e, 3),
    cr4: () => cr(e, 4),
    efer: () => efer(e),
    cs: () => codeAttributes(e),
  };
  if (breaksRule(register, (of) => operands[of]())) return true;
  if (register === "efer" || !((was ^ now) & LOADS_PDPTES[register === "cr0" ? 0 : 4])) {
    return false;
  }
  return register === "cr0"
    // Paging that begins with LME is IA-32e mode's.
    ? !(efer(e) & EFER.LME) && holdsPdptes(now, cr(e, 4), efer(e)) && pdptesFault(e)
    : holdsPdptes(cr(e, 0), now, efer(e)) && pdptesFault(e);
}

/** The write of CR3 is a #GP(0). */
export function cr3Faults(e: HvmEngine, value: bigint): boolean {
  const address = cr(e, 4) & CR4.PCIDE ? value & ~(1n << 63n) : value;
  if (address >> ADDRESS_BITS) return true;
  return holdsPdptes(cr(e, 0), cr(e, 4), efer(e)) && pdptesFault(e, value);
}

/** One of the four pointers that CR3 leads to is present with a reserved bit set (SDM 3 4.4.1). */
function pdptesFault(e: HvmEngine, value = e.ops.getCr(e.hvm, 3)): boolean {
  const cr3 = Number(value & POINTER_TABLE);
  const frame = e.p2m.machineFrame(e.p2m.canonical(Math.floor(cr3 / 4096)));
  // The emulator and the hardware read ones where there is no memory.
  if (frame < 0) return true;
  const { words } = e.p2m.machine, at = frame * 1024 + (cr3 % 4096 >> 2);
  const reserved = Number(PDPTE_RESERVED & 0xffff_ffffn);
  for (let n = 0; n < 4; n++) {
    const low = words[at + 2 * n], high = words[at + 2 * n + 1];
    if (low & 1 && (low & reserved || high >>> Number(ADDRESS_BITS) - 32)) return true;
  }
  return false;
}
