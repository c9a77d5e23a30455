/**
 * Numbers of VMX: exit reasons, control bits, VM-instruction errors, capability MSRs
 * (Intel SDM vol. 3, chapters 24 to 30, appendices A and C).
 * @module
 */

/** Basic exit reasons by number (appendix C, table C-1). */
export const exitReasonNames: Readonly<Record<number, string>> = {
  0: "exception-or-nmi",
  1: "external-interrupt",
  2: "triple-fault",
  3: "init",
  4: "sipi",
  5: "io-smi",
  6: "other-smi",
  7: "interrupt-window",
  8: "nmi-window",
  9: "task-switch",
  10: "cpuid",
  11: "getsec",
  12: "hlt",
  13: "invd",
  14: "invlpg",
  15: "rdpmc",
  16: "rdtsc",
  17: "rsm",
  18: "vmcall",
  19: "vmclear",
  20: "vmlaunch",
  21: "vmptrld",
  22: "vmptrst",
  23: "vmread",
  24: "vmresume",
  25: "vmwrite",
  26: "vmxoff",
  27: "vmxon",
  28: "cr-access",
  29: "mov-dr",
  30: "io",
  31: "rdmsr",
  32: "wrmsr",
  33: "entry-failure-guest-state",
  34: "entry-failure-msr-loading",
  36: "mwait",
  37: "monitor-trap-flag",
  39: "monitor",
  40: "pause",
  41: "entry-failure-machine-check",
  43: "tpr-below-threshold",
  44: "apic-access",
  45: "virtualized-eoi",
  46: "gdtr-idtr-access",
  47: "ldtr-tr-access",
  48: "ept-violation",
  49: "ept-misconfiguration",
  50: "invept",
  51: "rdtscp",
  52: "preemption-timer",
  53: "invvpid",
  54: "wbinvd",
  55: "xsetbv",
  56: "apic-write",
  57: "rdrand",
  58: "invpcid",
  59: "vmfunc",
  60: "encls",
  61: "rdseed",
  62: "page-modification-log-full",
  63: "xsaves",
  64: "xrstors",
};

/** Basic exit reasons that the machine or the hypervisor uses, by name. */
export const EXIT_REASON = {
  exception: 0,
  externalInterrupt: 1,
  tripleFault: 2,
  interruptWindow: 7,
  nmiWindow: 8,
  taskSwitch: 9,
  cpuid: 10,
  hlt: 12,
  invd: 13,
  invlpg: 14,
  rdpmc: 15,
  rdtsc: 16,
  vmcall: 18,
  vmclear: 19,
  vmlaunch: 20,
  vmptrld: 21,
  vmptrst: 22,
  vmread: 23,
  vmresume: 24,
  vmwrite: 25,
  vmxoff: 26,
  vmxon: 27,
  cr: 28,
  dr: 29,
  io: 30,
  rdmsr: 31,
  wrmsr: 32,
  guestState: 33,
  msrLoading: 34,
  mwait: 36,
  monitorTrapFlag: 37,
  monitor: 39,
  pause: 40,
  tprBelowThreshold: 43,
  gdtrIdtr: 46,
  ldtrTr: 47,
  eptViolation: 48,
  eptMisconfiguration: 49,
  invept: 50,
  rdtscp: 51,
  preemptionTimer: 52,
  invvpid: 53,
  wbinvd: 54,
  xsetbv: 55,
  rdrand: 57,
  invpcid: 58,
  vmfunc: 59,
  rdseed: 61,
  xsaves: 63,
  xrstors: 64,
} as const;

/** Bit 31 of the exit reason: the entry failed. */
export const ENTRY_FAILURE = 0x8000_0000;

const bit = (n: number) => (1 << n) >>> 0;

/** Pin-based VM-execution controls (table 24-5). */
export const PIN = {
  externalInterrupt: bit(0),
  nmi: bit(3),
  virtualNmis: bit(5),
  preemptionTimer: bit(6),
} as const;

/** Primary processor-based VM-execution controls (table 24-6). */
export const PRIMARY = {
  interruptWindow: bit(2),
  tscOffsetting: bit(3),
  hlt: bit(7),
  invlpg: bit(9),
  mwait: bit(10),
  rdpmc: bit(11),
  rdtsc: bit(12),
  cr3Load: bit(15),
  cr3Store: bit(16),
  cr8Load: bit(19),
  cr8Store: bit(20),
  tprShadow: bit(21),
  nmiWindow: bit(22),
  movDr: bit(23),
  unconditionalIo: bit(24),
  ioBitmaps: bit(25),
  monitorTrapFlag: bit(27),
  msrBitmaps: bit(28),
  monitor: bit(29),
  pause: bit(30),
  secondary: bit(31),
} as const;

/** Secondary processor-based VM-execution controls (table 24-7), those implemented. */
export const SECONDARY = {
  ept: bit(1),
  descriptorTable: bit(2),
  rdtscp: bit(3),
  vpid: bit(5),
  wbinvd: bit(6),
  unrestrictedGuest: bit(7),
  rdrand: bit(11),
  invpcid: bit(12),
  rdseed: bit(16),
  xsaves: bit(20),
} as const;

/** VM-exit controls (table 24-11). */
export const EXIT_CONTROL = {
  saveDebug: bit(2),
  hostAddressSpace: bit(9),
  acknowledgeInterrupt: bit(15),
  savePat: bit(18),
  loadPat: bit(19),
  saveEfer: bit(20),
  loadEfer: bit(21),
  savePreemptionTimer: bit(22),
} as const;

/** VM-entry controls (table 24-13). */
export const ENTRY_CONTROL = {
  loadDebug: bit(2),
  ia32eGuest: bit(9),
  loadPat: bit(14),
  loadEfer: bit(15),
} as const;

/** Control words and the names of their bits, for display and for setting by name. */
export const controlNames = {
  pinBasedControls: PIN,
  processorBasedControls: PRIMARY,
  secondaryControls: SECONDARY,
  exitControls: EXIT_CONTROL,
  entryControls: ENTRY_CONTROL,
} as const;

/** Bits of interruption and IDT-vectoring information; bits 10:8 are an EVENT_TYPE (vectors.ts). */
export const EVENT = {
  vector: 0xff,
  typeShift: 8,
  errorCode: 0x800,
  nmiUnblocking: 0x1000,
  valid: 0x8000_0000,
} as const;

/** VM-instruction errors by number (30.4, table 30-1). */
export const instructionErrors: Readonly<Record<number, string>> = {
  1: "VMCALL executed in VMX root operation",
  2: "VMCLEAR with invalid physical address",
  3: "VMCLEAR with VMXON pointer",
  4: "VMLAUNCH with non-clear VMCS",
  5: "VMRESUME with non-launched VMCS",
  6: "VMRESUME after VMXOFF",
  7: "VM entry with invalid control field(s)",
  8: "VM entry with invalid host-state field(s)",
  9: "VMPTRLD with invalid physical address",
  10: "VMPTRLD with VMXON pointer",
  11: "VMPTRLD with incorrect VMCS revision identifier",
  12: "VMREAD/VMWRITE from/to unsupported VMCS component",
  13: "VMWRITE to read-only VMCS component",
  15: "VMXON executed in VMX root operation",
  16: "VM entry with invalid executive-VMCS pointer",
  17: "VM entry with non-launched executive VMCS",
  18: "VM entry with executive-VMCS pointer not VMXON pointer",
  19: "VMCALL with non-clear VMCS",
  20: "VMCALL with invalid VM-exit control fields",
  22: "VMCALL with incorrect MSEG revision identifier",
  23: "VMXOFF under dual-monitor treatment of SMIs and SMM",
  24: "VMCALL with invalid SMM-monitor features",
  25: "VM entry with invalid VM-execution control fields in executive VMCS",
  26: "VM entry with events blocked by MOV SS",
  28: "Invalid operand to INVEPT/INVVPID",
};

/** VM-instruction error numbers by name. */
export const VM_ERROR = {
  vmcallInRoot: 1,
  vmclearAddress: 2,
  vmclearVmxonPointer: 3,
  vmlaunchNotClear: 4,
  vmresumeNotLaunched: 5,
  controls: 7,
  host: 8,
  vmptrldAddress: 9,
  vmptrldVmxonPointer: 10,
  vmptrldRevision: 11,
  unsupportedField: 12,
  readOnlyField: 13,
  vmxonInRoot: 15,
  blockedByMovSs: 26,
  invalidation: 28,
} as const;

/** Bits of the EPT and VPID capability, and of an EPT pointer (24.6.11). */
export const EPTP = { uncacheable: 0, writeBack: 6, walk4: 3 << 3, accessedDirty: 1 << 6 } as const;

/** Numbers of the VMX capability MSRs (appendix A). */
export const VMX_MSR = {
  basic: 0x480,
  pinBased: 0x481,
  processorBased: 0x482,
  exit: 0x483,
  entry: 0x484,
  misc: 0x485,
  cr0Fixed0: 0x486,
  cr0Fixed1: 0x487,
  cr4Fixed0: 0x488,
  cr4Fixed1: 0x489,
  vmcsEnum: 0x48a,
  processorBased2: 0x48b,
  eptVpidCap: 0x48c,
  truePinBased: 0x48d,
  trueProcessorBased: 0x48e,
  trueExit: 0x48f,
  trueEntry: 0x490,
} as const;

/** The names of the bits set in a control word; bits without a name as `bit N`. */
export function controlBits(names: Readonly<Record<string, number>>, value: number): string[] {
  const out: string[] = [];
  for (let n = 0; n < 32; n++) {
    if (!(value >>> n & 1)) continue;
    const name = Object.keys(names).find((k) => names[k] >>> 0 === (1 << n) >>> 0);
    out.push(name ?? `bit ${n}`);
  }
  return out;
}
