/**
 * The rules of VM entry (SDM 3 26.2 and 26.3) a second time, as plain predicates over field values:
 * what the machine's checks, which are generated code with a memory, are held against. Names are
 * those of the machine's checks.
 */
import { bit, bits, memoryTypes } from "./rules.ts";
import { CONTROLS } from "../../src/machine/vmx/capabilities.ts";

/** What an entry with these contents comes to. */
export interface Expectation {
  readonly what: "controls" | "host-state" | "guest-state";
  /** All rules of that part that are broken; the machine may name any of them. */
  readonly checks: ReadonlySet<string>;
}

export interface Surroundings {
  /** Width of physical addresses in bits. */
  readonly width: number;
  /** Machine memory. */
  readonly ram: DataView;
  /** Address of the VMCS, and the revision that one has to have. */
  readonly current: bigint;
  readonly revision: number;
}

type Get = (field: string) => bigint;

const canonical = (address: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;

class Broken {
  readonly names = new Set<string>();
  constructor(readonly prefix: string) {}
  no(name: string, broken: boolean): void {
    if (broken) this.names.add(`${this.prefix}.${name}`);
  }
}

/** Whether bits that must be 1 are, and no other than those that may be. */
const allowed = (value: bigint, { must, may }: { must: number; may: number }): boolean =>
  (value & BigInt(must)) === BigInt(must) && (value & ~BigInt(may)) === 0n;

const secondaryOf = (get: Get): bigint =>
  bit(get("processorBasedControls"), 31) ? get("secondaryControls") : 0n;

/** 26.2.1: the VMX controls. */
function controls(get: Get, { width, ram }: Surroundings): Set<string> {
  const { names, no } = bound(new Broken("vmx.controls"));
  const pin = get("pinBasedControls"), primary = get("processorBasedControls");
  const exit = get("exitControls"), entry = get("entryControls"), secondary = secondaryOf(get);
  const far = (address: bigint) => address >> BigInt(width) !== 0n;
  const page = (name: string, field: string) => {
    no(name, bits(get(field), 11, 0) !== 0n || far(get(field)));
  };
  no("pin", !allowed(pin, CONTROLS.pin));
  no("primary", !allowed(primary, CONTROLS.primary));
  no("secondary", !allowed(secondary, CONTROLS.secondary));
  no("exit", !allowed(exit, CONTROLS.exit));
  no("entry", !allowed(entry, CONTROLS.entry));
  no("cr3Targets", get("cr3TargetCount") > 4n);
  if (bit(primary, 25)) {
    page("ioBitmapA", "ioBitmapA");
    page("ioBitmapB", "ioBitmapB");
  }
  if (bit(primary, 28)) page("msrBitmap", "msrBitmap");
  if (bit(primary, 21)) {
    page("virtualApic", "virtualApicAddress");
    const threshold = get("tprThreshold"), at = get("virtualApicAddress");
    no("tprThreshold", threshold > 15n);
    if (at < BigInt(ram.byteLength - 4096)) {
      no("tprAbove", bits(threshold, 3, 0) > BigInt(ram.getUint8(Number(at) + 0x80) >> 4));
    }
  }
  no("virtualNmis", !bit(pin, 3) && bit(pin, 5));
  no("nmiWindow", !bit(pin, 5) && bit(primary, 22));
  no("vpid", bit(secondary, 5) && get("vpid") === 0n);
  const eptp = get("eptPointer");
  const eptpGood = [0n, 6n].includes(bits(eptp, 2, 0)) && bits(eptp, 5, 3) === 3n &&
    bits(eptp, 11, 7) === 0n && !far(eptp);
  no("eptp", bit(secondary, 1) && !eptpGood);
  no("unrestricted", bit(secondary, 7) && !bit(secondary, 1));
  no("timerSave", !bit(pin, 6) && bit(exit, 22));
  for (const area of ["exitMsrStore", "exitMsrLoad", "entryMsrLoad"]) {
    const count = get(`${area}Count`), address = get(`${area}Address`);
    const last = address + count * 16n - 1n;
    no(area, count > 0n && (bits(address, 3, 0) !== 0n || far(address) || far(last)));
  }
  if (bit(get("entryInterruptionInformation"), 31)) {
    for (const name of injected(get)) names.add(name);
  }
  return names;
}

/** 26.2.1.3: the event to be injected. */
function injected(get: Get): Set<string> {
  const { names, no } = bound(new Broken("vmx.inject"));
  const info = get("entryInterruptionInformation");
  const vector = Number(bits(info, 7, 0)), type = Number(bits(info, 10, 8));
  no("type", type === 1);
  no("nmi", type === 2 && vector !== 2);
  no("exception", type === 3 && vector > 31);
  no("other", type === 7 && vector !== 0);
  no("reserved", bits(info, 30, 12) !== 0n);
  const unrestricted = bit(secondaryOf(get), 7);
  const coded = type === 3 && [8, 10, 11, 12, 13, 14, 17].includes(vector) &&
    (!unrestricted || bit(get("guestCr0"), 0));
  no("errorCode", bit(info, 11) !== coded);
  no("errorCodeBits", bit(info, 11) && bits(get("entryExceptionErrorCode"), 31, 16) !== 0n);
  no("length", [4, 5, 6].includes(type) && get("entryInstructionLength") > 15n);
  return names;
}

/** SCE, LME, LMA, NXE. */
const eferGood = (efer: bigint): boolean => (efer & ~0xd01n) === 0n;
/** Bits of CR4 that the processor has (its features are those of the simulated Intel model). */
const CR4_MAY = 0x37_2fffn;

/** 26.2.2 to 26.2.4: the host, which runs in IA-32e mode. */
function host(get: Get, { width }: Surroundings): Set<string> {
  const { names, no } = bound(new Broken("vmx.host"));
  const exit = get("exitControls"), wide = bit(exit, 9), cr4 = get("hostCr4");
  const cr0 = get("hostCr0");
  no("cr0", !(bit(cr0, 0) && bit(cr0, 5) && bit(cr0, 31)) || cr0 >> 32n !== 0n);
  no("cr4", !bit(cr4, 13) || (cr4 & ~CR4_MAY) !== 0n);
  no("cr3", get("hostCr3") >> BigInt(width) !== 0n);
  for (const part of ["SysenterEsp", "SysenterEip", "FsBase", "GsBase", "GdtrBase", "IdtrBase"]) {
    no(`host${part}`, !canonical(get(`host${part}`)));
  }
  no("hostTrBase", !canonical(get("hostTrBase")));
  no("pat", bit(exit, 19) && !memoryTypes(get("hostPat")));
  const efer = get("hostEfer");
  no("efer", bit(exit, 21) && (!eferGood(efer) || bit(efer, 10) !== wide || bit(efer, 8) !== wide));
  for (const s of ["Cs", "Ss", "Ds", "Es", "Fs", "Gs", "Tr"]) {
    no(`${s.toLowerCase()}.selector`, bits(get(`host${s}Selector`), 2, 0) !== 0n);
  }
  no("cs.null", get("hostCsSelector") === 0n);
  no("tr.null", get("hostTrSelector") === 0n);
  no("ss.null", !wide && get("hostSsSelector") === 0n);
  no("addressSpace", !wide);
  no("ia32eGuest", !wide && bit(get("entryControls"), 9));
  no("pae", wide && !bit(cr4, 5));
  no("rip", wide && !canonical(get("hostRip")));
  no("ripWide", !wide && get("hostRip") >> 32n !== 0n);
  return names;
}

/** 26.3.1: the guest. */
function guest(get: Get, around: Surroundings): Set<string> {
  const { names, no } = bound(new Broken("vmx.guest"));
  guestRegisters(get, around, no);
  guestSegments(get, no);
  guestRest(get, around, no);
  return names;
}
type No = (name: string, broken: boolean) => void;

function guestRegisters(get: Get, { width }: Surroundings, no: No): void {
  const entry = get("entryControls"),
    ia32e = bit(entry, 9),
    unrestricted = bit(secondaryOf(get), 7);
  const cr0 = get("guestCr0"), cr4 = get("guestCr4"), pg = bit(cr0, 31), pe = bit(cr0, 0);
  no("cr0", !bit(cr0, 5) || (!unrestricted && !(pg && pe)) || cr0 >> 32n !== 0n);
  no("cr0.pg", pg && !pe);
  no("cr4", !bit(cr4, 13) || (cr4 & ~CR4_MAY) !== 0n);
  no("debugctl", bit(entry, 2) && (get("guestDebugctl") & ~3n) !== 0n);
  no("dr7", bit(entry, 2) && get("guestDr7") >> 32n !== 0n);
  no("ia32e.paging", ia32e && !(pg && bit(cr4, 5)));
  no("cr3", get("guestCr3") >> BigInt(width) !== 0n);
  for (const name of ["guestSysenterEsp", "guestSysenterEip"]) no(name, !canonical(get(name)));
  no("pat", bit(entry, 14) && !memoryTypes(get("guestPat")));
  const efer = get("guestEfer"), lma = bit(efer, 10);
  no("efer", bit(entry, 15) && !eferGood(efer));
  no("efer.lma", bit(entry, 15) && (lma !== ia32e || (pg && lma !== bit(efer, 8))));
  const rflags = get("guestRflags"), rip = get("guestRip");
  const code64 = ia32e && bit(get("guestCsAccessRights"), 13);
  // Bit 47 is not looked at (26.3.1.4).
  no("rip", code64 && rip >> 48n !== 0n && rip >> 48n !== 0xffffn);
  no("ripWide", !code64 && rip >> 32n !== 0n);
  const reserved = bits(rflags, 63, 22) !== 0n || bit(rflags, 15) || bit(rflags, 5) ||
    bit(rflags, 3);
  no("rflags", reserved || !bit(rflags, 1));
  no("rflags.vm", bit(rflags, 17) && (ia32e || !pe));
}

/** 26.3.1.2 and 26.3.1.3. */
function guestSegments(get: Get, no: No): void {
  const ia32e = bit(get("entryControls"), 9), unrestricted = bit(secondaryOf(get), 7);
  const v86 = bit(get("guestRflags"), 17);
  const rights = (s: string) => get(`guest${s}AccessRights`);
  const dpl = (s: string) => bits(rights(s), 6, 5);
  const type = (s: string) => Number(bits(rights(s), 3, 0));
  const selector = (s: string) => get(`guest${s}Selector`);
  const limit = (s: string) => get(`guest${s}Limit`), base = (s: string) => get(`guest${s}Base`);
  const usable = (s: string) => !bit(rights(s), 16);
  const shape = (s: string, system: boolean) => {
    const low = s.toLowerCase(), g = bit(rights(s), 15);
    no(`${low}.system`, bit(rights(s), 4) === system);
    no(`${low}.present`, !bit(rights(s), 7));
    no(`${low}.reserved`, bits(rights(s), 11, 8) !== 0n || bits(rights(s), 31, 17) !== 0n);
    const ones = bits(limit(s), 11, 0) === 0xfffn, small = bits(limit(s), 31, 20) === 0n;
    no(`${low}.granularity`, (!ones && g) || (!small && !g));
  };
  for (const s of ["Cs", "Ss", "Ds", "Es", "Fs", "Gs"]) {
    const low = s.toLowerCase();
    if (s === "Fs" || s === "Gs") no(`guest${s}Base`, !canonical(base(s)));
    if (v86) {
      no(
        `${low}.v86`,
        base(s) !== selector(s) << 4n || limit(s) !== 0xffffn || rights(s) !== 0xf3n,
      );
      continue;
    }
    if (s !== "Cs" && !usable(s)) continue;
    shape(s, false);
    if (s !== "Fs" && s !== "Gs") no(`${low}.base`, base(s) >> 32n !== 0n);
    if (s === "Cs") {
      const code = [9, 11, 13, 15].includes(type(s));
      no("cs.type", !code && !(unrestricted && type(s) === 3));
      const fits = type(s) === 3
        ? dpl(s) === 0n
        : [9, 11].includes(type(s))
        ? dpl(s) === dpl("Ss")
        : [13, 15].includes(type(s))
        ? dpl(s) <= dpl("Ss")
        : true;
      no("cs.dpl", !fits);
      no("cs.long", ia32e && bit(rights(s), 13) && bit(rights(s), 14));
    } else if (s === "Ss") no("ss.type", ![3, 7].includes(type(s)));
    else {
      const readable = (type(s) & 1) === 1 && ((type(s) & 8) === 0 || (type(s) & 2) === 2);
      no(`${low}.type`, !readable);
      no(`${low}.dpl`, !unrestricted && type(s) <= 11 && dpl(s) < bits(selector(s), 1, 0));
    }
  }
  if (!v86) {
    const rpl = bits(selector("Ss"), 1, 0);
    no("ss.rpl", !unrestricted && rpl !== bits(selector("Cs"), 1, 0));
    no("ss.dpl", !unrestricted && dpl("Ss") !== rpl);
    no("ss.dplZero", (type("Cs") === 3 || !bit(get("guestCr0"), 0)) && dpl("Ss") !== 0n);
  }
  no("tr.unusable", !usable("Tr"));
  for (const s of ["Tr", "Ldtr"]) {
    if (s === "Ldtr" && !usable(s)) continue;
    const low = s.toLowerCase();
    no(`${low}.ti`, bit(selector(s), 2));
    no(`${low}.type`, s === "Ldtr" ? type(s) !== 2 : type(s) !== 11 && (ia32e || type(s) !== 3));
    shape(s, true);
    no(`guest${s}Base`, !canonical(base(s)));
  }
  for (const s of ["Gdtr", "Idtr"]) {
    no(`guest${s}Base`, !canonical(base(s)));
    no(`${s.toLowerCase()}.limit`, limit(s) >> 16n !== 0n);
  }
}

/** 26.3.1.5 and 26.3.1.6. */
function guestRest(get: Get, { width, ram, current, revision }: Surroundings, no: No): void {
  const activity = get("guestActivity"), blocking = get("guestInterruptibility");
  const rflags = get("guestRflags"), pending = get("guestPendingDebug");
  const sti = bit(blocking, 0), movSs = bit(blocking, 1);
  no("activity", activity > 3n);
  no("activity.hlt", activity === 1n && bits(get("guestSsAccessRights"), 6, 5) !== 0n);
  no("activity.blocked", activity !== 0n && (sti || movSs));
  no("interruptibility", bits(blocking, 31, 4) !== 0n);
  no("interruptibility.both", sti && movSs);
  no("interruptibility.sti", sti && !bit(rflags, 9));
  no("interruptibility.smi", bit(blocking, 2));
  no("pendingDebug", (pending & ~0x500fn) !== 0n);
  const trapped = bit(rflags, 8) && !bit(get("guestDebugctl"), 1);
  no("pendingDebug.bs", (sti || movSs || activity === 1n) && bit(pending, 14) !== trapped);
  const info = get("entryInterruptionInformation");
  if (bit(info, 31)) {
    const type = Number(bits(info, 10, 8)), vector = Number(bits(info, 7, 0));
    no("inject.if", type === 0 && !bit(rflags, 9));
    no("inject.blocked", type === 0 && (sti || movSs));
    no("inject.nmiBlocked", type === 2 && movSs);
    no("inject.virtualNmi", type === 2 && bit(get("pinBasedControls"), 5) && bit(blocking, 3));
    const machineCheck = type === 3 && vector === 18;
    const wakes = [
      () => true,
      () => type === 0 || type === 2 || machineCheck || (type === 3 && vector === 1) || type === 7,
      () => type === 2 || machineCheck,
      () => false,
    ][Number(activity > 3n ? 0n : activity)];
    no("inject.activity", !wakes());
  }
  const link = get("vmcsLinkPointer");
  if (link !== (1n << 64n) - 1n) {
    const memory = link <= BigInt(ram.byteLength - 4096);
    no(
      "linkPointer",
      bits(link, 11, 0) !== 0n || link >> BigInt(width) !== 0n || link === current || !memory ||
        ram.getUint32(Number(link), true) !== revision,
    );
  }
  const pae = bit(get("guestCr0"), 31) && bit(get("guestCr4"), 5) && !bit(get("entryControls"), 9);
  if (!pae) return;
  // From the VMCS with EPT, else from memory; where there is none they are all ones.
  const table = Number(get("guestCr3") & 0xffff_ffe0n);
  for (let n = 0; n < 4; n++) {
    const inMemory = table < ram.byteLength ? ram.getBigUint64(table + 8 * n, true) : ~0n;
    const entry = bit(secondaryOf(get), 1) ? get(`guestPdpte${n}`) : inMemory;
    const reserved = (entry & 0x1e6n) !== 0n || entry >> BigInt(width) !== 0n;
    no(`pdpte${n}`, bit(entry, 0) && reserved);
  }
}

function bound(broken: Broken): { names: Set<string>; no: No } {
  return { names: broken.names, no: (name, is) => broken.no(name, is) };
}

/** What is wrong with the contents of a VMCS; undefined if the guest can be entered. */
export function vmxExpectation(get: Get, around: Surroundings): Expectation | undefined {
  const parts = [
    ["controls", controls],
    ["host-state", host],
    ["guest-state", guest],
  ] as const;
  for (const [what, rules] of parts) {
    const checks = rules(get, around);
    if (checks.size) return { what, checks };
  }
  return undefined;
}
