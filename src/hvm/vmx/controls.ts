/** VM-execution controls: the least that is always on, and what a neutral description asks for. */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { CR0, CR4 } from "../../abi/x86/cr.ts";
import { ENTRY_CONTROL, EXIT_CONTROL, PIN, PRIMARY, SECONDARY } from "../../abi/x86/vmx.ts";
import { CONTROLS } from "../../machine/vmx/capabilities.ts";
import { portBitmap, setBit } from "../bitmaps.ts";
import { GUEST, type Intercepts } from "../ops.ts";
import { withShadow } from "../shadow.ts";
import { F, type VmxVcpu } from "./cpu.ts";

/** CR0: NE is the hardware's, NW and CD are not loaded by VM entry. CR4: VMXE is the host's. */
export const OWN_CR0 = CR0.NW | CR0.CD | CR0.NE;
export const OWN_CR4 = CR4.VMXE;
/** #MF: CR0.NE is the hardware's, and what a guest without it sees instead is the hypervisor's to do. */
const OWN_EXCEPTIONS = 1 << VECTOR.MF;

/** Controls of a fresh vCPU: nothing exits that need not. */
export const BASE_CONTROLS: Readonly<Record<string, number>> = {
  pinBasedControls: CONTROLS.pin.must | PIN.externalInterrupt | PIN.nmi | PIN.virtualNmis,
  processorBasedControls: CONTROLS.primary.must | PRIMARY.ioBitmaps | PRIMARY.msrBitmaps |
    PRIMARY.secondary,
  secondaryControls: SECONDARY.rdtscp | SECONDARY.invpcid | SECONDARY.xsaves,
  exitControls: CONTROLS.exit.must | EXIT_CONTROL.saveDebug | EXIT_CONTROL.hostAddressSpace |
    EXIT_CONTROL.acknowledgeInterrupt | EXIT_CONTROL.savePat | EXIT_CONTROL.loadPat |
    EXIT_CONTROL.saveEfer | EXIT_CONTROL.loadEfer,
  entryControls: CONTROLS.entry.must | ENTRY_CONTROL.loadDebug | ENTRY_CONTROL.loadPat |
    ENTRY_CONTROL.loadEfer,
  exceptionBitmap: OWN_EXCEPTIONS,
  cr0Mask: OWN_CR0,
  cr4Mask: OWN_CR4,
};

const WORDS = {
  pin: [F.pinBasedControls, PIN],
  primary: [F.processorBasedControls, PRIMARY],
  secondary: [F.secondaryControls, SECONDARY],
  exit: [F.exitControls, EXIT_CONTROL],
} as const;

/** Sets or clears one control of the current VMCS; nothing is written if it is so already. */
export function setControl(
  v: VmxVcpu,
  word: keyof typeof WORDS,
  bit: string,
  on: boolean,
): void {
  const [field, names] = WORDS[word];
  const mask = (names as Readonly<Record<string, number>>)[bit];
  if (mask === undefined) throw new Error(`no ${word} control is called "${bit}"`);
  const old = v.on.read(field), value = on ? old | mask : old & ~mask;
  if (old === value) return;
  v.on.write(field, value, 0);
  v.noteControls();
}

/** Neutral wishes that are one control bit. */
const BITS = {
  hlt: ["primary", "hlt"],
  invlpg: ["primary", "invlpg"],
  monitor: ["primary", "monitor"],
  mwait: ["primary", "mwait"],
  pause: ["primary", "pause"],
  rdpmc: ["primary", "rdpmc"],
  rdtsc: ["primary", "rdtsc"],
  dr: ["primary", "movDr"],
  wbinvd: ["secondary", "wbinvd"],
  "descriptor-table": ["secondary", "descriptorTable"],
  rdrand: ["secondary", "rdrand"],
  rdseed: ["secondary", "rdseed"],
} as const;

/** Features whose instructions are there by a control of their own. */
export const ENABLED: readonly string[] = ["rdtscp", "invpcid", "xsaves"];

/** Numbers of MSRs that have a bit in the bitmap: 0 to 0x1fff and 0xc0000000 to 0xc0001fff. */
function msrBit(number: number): number {
  if (number <= 0x1fff) return number;
  if (number >= 0xc000_0000 && number <= 0xc000_1fff) return 0x2000 + number - 0xc000_0000;
  return -1;
}

function msrBitmap(wanted: "all" | "none" | readonly number[]): Uint8Array {
  const bytes = new Uint8Array(2048).fill(wanted === "all" ? 0xff : 0);
  if (typeof wanted === "string") return bytes;
  for (const number of wanted) {
    const bit = msrBit(number);
    // The others exit whatever one asks.
    if (bit >= 0) setBit(bytes, bit);
  }
  return bytes;
}

/** The hardware has no PCIDs: INVPCID is completed where the guest's CR4 counts. */
function forShadow(v: VmxVcpu, asked: Intercepts): Intercepts {
  const wanted = withShadow(asked);
  if (wanted.invlpg !== undefined && v.guest[GUEST.cr4] & CR4.PCIDE) wanted.invlpg = true;
  return wanted;
}

/** Gives the current VMCS the exits that are wanted. */
export function applyIntercepts(v: VmxVcpu, asked: Intercepts): void {
  const { on } = v, { machine } = on.cpu;
  const wanted = v.shadowed ? forShadow(v, asked) : asked;
  for (const name of Object.keys(BITS) as (keyof typeof BITS)[]) {
    const value = wanted[name];
    if (value !== undefined) setControl(v, BITS[name][0], BITS[name][1], value);
  }
  if (wanted.absent) {
    for (const name of ENABLED) setControl(v, "secondary", name, !wanted.absent.includes(name));
  }
  const crs = (bits: number | undefined, cr3: string, cr8: string) => {
    if (bits === undefined) return;
    setControl(v, "primary", cr3, (bits & 1 << 3) !== 0);
    setControl(v, "primary", cr8, (bits & 1 << 8) !== 0);
  };
  crs(wanted.crRead, "cr3Store", "cr8Store");
  crs(wanted.crWrite, "cr3Load", "cr8Load");
  if (wanted.cr0Bits !== undefined) setMask(v, 0, wanted.cr0Bits | OWN_CR0);
  if (wanted.cr4Bits !== undefined) setMask(v, 4, wanted.cr4Bits | OWN_CR4);
  if (asked.exceptions !== undefined) v.kept.asked = asked.exceptions;
  if (wanted.exceptions !== undefined) {
    on.write(F.exceptionBitmap, wanted.exceptions | OWN_EXCEPTIONS, 0);
  }
  if (wanted.pageFault) {
    on.write(F.pageFaultErrorCodeMask, wanted.pageFault.mask, 0);
    on.write(F.pageFaultErrorCodeMatch, wanted.pageFault.match, 0);
  }
  if (wanted.ports !== undefined) {
    const bytes = portBitmap(wanted.ports);
    machine.write(on.read(F.ioBitmapA) >>> 0, bytes.subarray(0, 4096));
    machine.write(on.read(F.ioBitmapB) >>> 0, bytes.subarray(4096));
  }
  const bitmap = on.read(F.msrBitmap) >>> 0;
  if (wanted.msrReads !== undefined) machine.write(bitmap, msrBitmap(wanted.msrReads));
  if (wanted.msrWrites !== undefined) machine.write(bitmap + 2048, msrBitmap(wanted.msrWrites));
}

/** Changes which bits of CR0 or CR4 the host owns; what the guest sees stays. */
export function setMask(v: VmxVcpu, n: 0 | 4, mask: number): void {
  const { on } = v;
  const old = on.read64(F[`cr${n}Mask`]);
  const seen = on.read64(F[`guestCr${n}`]) & ~old | on.read64(F[`cr${n}ReadShadow`]) & old;
  on.write64(F[`cr${n}ReadShadow`], seen);
  on.write(F[`cr${n}Mask`], mask, 0);
}
