import { assertEquals } from "@std/assert";
import { EXIT_REASON, VM_ERROR } from "../../abi/x86/vmx.ts";
import { allChecks } from "../checks.ts";
import { HEAD, VMCS_REVISION } from "./layout.ts";
import { LEFT_AT_ONCE } from "./entry.ts";
import { STATUS } from "./operations.ts";
import { Bench, PLACE } from "./testing.ts";

type Fields = Record<string, bigint | number>;
/** Check that fails, fields that make it fail, and what else has to be so. */
type Case = readonly [check: string, fields: Fields, setUp?: (b: Bench) => void];

const PRIMARY = 0x8400_6172, HIGH = 1n << 40n, UNCANONICAL = 1n << 47n;
const UNRESTRICTED = { secondaryControls: 0x82, eptPointer: 0x5e };
/** A real-mode guest, allowed by unrestricted guest. */
const REAL = { ...UNRESTRICTED, guestCr0: 0x20 };
const LONG = { entryControls: 0x11fb | 0x200, guestCr4: 0x2020 };
const V86: Fields = {
  guestRflags: 0x2_0002,
  ...Object.fromEntries(
    ["Cs", "Ss", "Ds", "Es", "Fs", "Gs"].flatMap((s) => [
      [`guest${s}Selector`, 0],
      [`guest${s}Base`, 0],
      [`guest${s}Limit`, 0xffff],
      [`guest${s}AccessRights`, 0xf3],
    ]),
  ),
};
const inject = (vector: number, type: number, rest = 0): Fields => ({
  entryInterruptionInformation: (0x8000_0000 | type << 8 | vector | rest) >>> 0,
});

const controls: Case[] = [
  ["pin", { pinBasedControls: 0 }],
  ["pin", { pinBasedControls: 0x16 | 1 << 7 }],
  ["primary", { processorBasedControls: PRIMARY & ~2 }],
  ["secondary", { secondaryControls: 1 }],
  ["exit", { exitControls: 0 }],
  ["exit", { exitControls: 0x0003_6fff | 1 << 12 }],
  ["entry", { entryControls: 0x11fb | 1 << 10 }],
  ["cr3Targets", { cr3TargetCount: 5 }],
  ["ioBitmapA", { processorBasedControls: PRIMARY | 1 << 25, ioBitmapA: 0x4001 }],
  ["ioBitmapB", { processorBasedControls: PRIMARY | 1 << 25, ioBitmapB: HIGH }],
  ["msrBitmap", { processorBasedControls: PRIMARY | 1 << 28, msrBitmap: 0x4800 }],
  ["virtualApic", { processorBasedControls: PRIMARY | 1 << 21, virtualApicAddress: 0x10 }],
  [
    "tprThreshold",
    { processorBasedControls: PRIMARY | 1 << 21, virtualApicAddress: 0x4000, tprThreshold: 0x10 },
  ],
  [
    "tprAbove",
    { processorBasedControls: PRIMARY | 1 << 21, virtualApicAddress: 0x4000, tprThreshold: 1 },
  ],
  ["virtualNmis", { pinBasedControls: 0x16 | 0x20 }],
  ["nmiWindow", { processorBasedControls: PRIMARY | 1 << 22 }],
  ["vpid", { secondaryControls: 0x20 }],
  ["eptp", { secondaryControls: 2, eptPointer: 0x1f }],
  ["eptp", { secondaryControls: 2, eptPointer: 0x16 }],
  ["eptp", { secondaryControls: 2, eptPointer: HIGH | 0x1en }],
  ["unrestricted", { secondaryControls: 0x80 }],
  ["timerSave", { exitControls: 0x0003_6ffb | 1 << 22 }],
  ["exitMsrStore", { exitMsrStoreCount: 1, exitMsrStoreAddress: 8 }],
  ["exitMsrLoad", { exitMsrLoadCount: 1, exitMsrLoadAddress: HIGH }],
  ["entryMsrLoad", { entryMsrLoadCount: 2, entryMsrLoadAddress: (1n << 36n) - 16n }],
];

const injections: Case[] = [
  ["type", inject(0, 1)],
  ["nmi", inject(3, 2)],
  ["exception", inject(32, 3)],
  ["other", inject(1, 7)],
  ["reserved", inject(3, 3, 1 << 12)],
  ["errorCode", inject(13, 3)],
  ["errorCode", inject(6, 3, 0x800)],
  ["errorCode", { ...REAL, ...inject(13, 3, 0x800) }],
  ["errorCodeBits", { ...inject(13, 3, 0x800), entryExceptionErrorCode: 0x1_0000 }],
  ["length", { ...inject(3, 6), entryInstructionLength: 16 }],
];

const hosts: Case[] = [
  ["cr0", { hostCr0: 0x31 }],
  ["cr0", { hostCr0: 1n << 32n | 0x8000_0031n }],
  ["cr4", { hostCr4: 0x20 }],
  ["cr4", { hostCr4: 0x2020 | 1 << 14 }],
  ["cr3", { hostCr3: HIGH }],
  ["hostSysenterEsp", { hostSysenterEsp: UNCANONICAL }],
  ["hostSysenterEip", { hostSysenterEip: UNCANONICAL }],
  ["pat", { exitControls: 0x0003_6ffb | 1 << 19, hostPat: 2 }],
  ["pat", { exitControls: 0x0003_6ffb | 1 << 19, hostPat: 8n << 56n }],
  ["efer", { exitControls: 0x0003_6ffb | 1 << 21, hostEfer: 0x100 }],
  ["efer", { exitControls: 0x0003_6ffb | 1 << 21, hostEfer: 0x502 }],
  ...["cs", "ss", "ds", "es", "fs", "gs", "tr"].map((s): Case => [
    `${s}.selector`,
    { [`host${s[0].toUpperCase()}${s[1]}Selector`]: 12 },
  ]),
  ["cs.null", { hostCsSelector: 0 }],
  ["tr.null", { hostTrSelector: 0 }],
  ["ss.null", { exitControls: 0x0003_6dfb, hostSsSelector: 0 }],
  ...["hostFsBase", "hostGsBase", "hostGdtrBase", "hostIdtrBase", "hostTrBase"].map((n): Case => [
    n,
    { [n]: UNCANONICAL },
  ]),
  ["addressSpace", { exitControls: 0x0003_6dfb, hostSsSelector: 0x10 }],
  [
    "ia32eGuest",
    { ...LONG, exitControls: 0x0003_6dfb, hostSsSelector: 0x10 },
    (b) => b.u64[0] = narrowHost(b),
  ],
  ["pae", { hostCr4: 0x2000 }],
  ["rip", { hostRip: UNCANONICAL }],
  [
    "ripWide",
    { exitControls: 0x0003_6dfb, hostSsSelector: 0x10, hostRip: 1n << 32n },
    (b) => b.u64[0] = narrowHost(b),
  ],
];

import { CPU } from "../state.ts";
/** Takes the processor out of IA-32e mode. */
function narrowHost(b: Bench): bigint {
  b.u64[CPU.efer >> 3] = 0n;
  return 0n;
}

const CODE_OR_DATA = ["cs", "ss", "ds", "es", "fs", "gs"];
const field = (s: string, part: string) => `guest${s[0].toUpperCase()}${s.slice(1)}${part}`;
const goodRights = (s: string) => s === "cs" ? 0xc09b : 0xc093;

const segments: Case[] = CODE_OR_DATA.flatMap((s): Case[] => [
  [`${s}.v86`, { ...V86, [field(s, "Base")]: 16 }],
  [`${s}.v86`, { ...V86, [field(s, "Limit")]: 0xfffe }],
  [`${s}.v86`, { ...V86, [field(s, "AccessRights")]: 0x93 }],
  [`${s}.type`, { [field(s, "AccessRights")]: goodRights(s) & ~1 }],
  [`${s}.system`, { [field(s, "AccessRights")]: goodRights(s) & ~0x10 }],
  [`${s}.present`, { [field(s, "AccessRights")]: goodRights(s) & ~0x80 }],
  [`${s}.reserved`, { [field(s, "AccessRights")]: goodRights(s) | 0x100 }],
  [`${s}.granularity`, { [field(s, "AccessRights")]: goodRights(s) & ~0x8000 }],
  [`${s}.granularity`, { [field(s, "Limit")]: 0xfffe }],
]);

const guests: Case[] = [
  ["cr0", { guestCr0: 0x8000_0011 }],
  ["cr0", { guestCr0: 0x31 }],
  ["cr0", { ...UNRESTRICTED, guestCr0: 0x1 }],
  ["cr0.pg", { ...UNRESTRICTED, guestCr0: 0x8000_0020 }],
  ["cr4", { guestCr4: 0 }],
  ["cr4", { guestCr4: 0x2000 | 1 << 22 }],
  ["debugctl", { entryControls: 0x11ff, guestDebugctl: 4 }],
  ["dr7", { entryControls: 0x11ff, guestDr7: 1n << 32n }],
  ["ia32e.paging", { ...LONG, guestCr4: 0x2000 }],
  ["cr3", { guestCr3: HIGH }],
  ["guestSysenterEsp", { guestSysenterEsp: UNCANONICAL }],
  ["guestSysenterEip", { guestSysenterEip: UNCANONICAL }],
  ["pat", { entryControls: 0x11fb | 1 << 14, guestPat: 3 }],
  ["efer", { entryControls: 0x11fb | 1 << 15, guestEfer: 2 }],
  ["efer.lma", { entryControls: 0x11fb | 1 << 15, guestEfer: 0x400 }],
  ["efer.lma", { ...LONG, entryControls: 0x13fb | 1 << 15, guestEfer: 0x400 }],
  ["ss.rpl", { guestSsSelector: 0x13 }],
  ["ss.dpl", { guestCsSelector: 0xb, guestSsSelector: 0x13 }],
  ["ss.dplZero", { ...UNRESTRICTED, guestCsAccessRights: 0xc093, guestSsAccessRights: 0xc0f3 }],
  ...segments,
  ["cs.dpl", { guestCsAccessRights: 0xc0fb }],
  ["cs.dpl", { guestCsAccessRights: 0xc0ff }],
  ["cs.long", { ...LONG, guestCsAccessRights: 0xe09b }],
  ...["ds", "es", "fs", "gs"].map((s): Case => [`${s}.dpl`, { [field(s, "Selector")]: 0x13 }]),
  ...["cs", "ss", "ds", "es"].map((s): Case => [`${s}.base`, { [field(s, "Base")]: 1n << 32n }]),
  ["guestFsBase", { guestFsBase: UNCANONICAL }],
  ["guestGsBase", { guestGsBase: UNCANONICAL }],
  ["tr.unusable", { guestTrAccessRights: 0x1_008b }],
  ["tr.ti", { guestTrSelector: 0x1c }],
  ["tr.type", { guestTrAccessRights: 0x89 }],
  ["tr.type", { ...LONG, guestTrAccessRights: 0x83 }],
  ["tr.system", { guestTrAccessRights: 0x9b }],
  ["tr.present", { guestTrAccessRights: 0x0b }],
  ["tr.reserved", { guestTrAccessRights: 0x18b }],
  ["tr.granularity", { guestTrAccessRights: 0x808b }],
  ["guestTrBase", { guestTrBase: UNCANONICAL }],
  ["ldtr.ti", { guestLdtrAccessRights: 0x82, guestLdtrSelector: 4 }],
  ["ldtr.type", { guestLdtrAccessRights: 0x83 }],
  ["ldtr.system", { guestLdtrAccessRights: 0x92 }],
  ["ldtr.present", { guestLdtrAccessRights: 0x02 }],
  ["ldtr.reserved", { guestLdtrAccessRights: 0x382 }],
  ["ldtr.granularity", { guestLdtrAccessRights: 0x82, guestLdtrLimit: 0x10_0000 }],
  ["guestLdtrBase", { guestLdtrAccessRights: 0x82, guestLdtrBase: UNCANONICAL }],
  ["guestGdtrBase", { guestGdtrBase: UNCANONICAL }],
  ["guestIdtrBase", { guestIdtrBase: UNCANONICAL }],
  ["gdtr.limit", { guestGdtrLimit: 0x1_0000 }],
  ["idtr.limit", { guestIdtrLimit: 0x1_0000 }],
  ["rip", { ...LONG, guestCsAccessRights: 0xa09b, guestRip: 1n << 48n }],
  ["rip", { ...LONG, guestCsAccessRights: 0xa09b, guestRip: 0xfffe_8000_0000_0000n }],
  ["ripWide", { guestRip: 1n << 32n }],
  ["rflags", { guestRflags: 0 }],
  ["rflags", { guestRflags: 0xa }],
  ["rflags", { guestRflags: 1n << 22n | 2n }],
  ["rflags.vm", { ...V86, ...REAL }],
  ["activity", { guestActivity: 4 }],
  [
    "activity.hlt",
    {
      guestActivity: 1,
      guestCsSelector: 0xb,
      guestCsAccessRights: 0xc0fb,
      guestSsSelector: 0x13,
      guestSsAccessRights: 0xc0f3,
    },
  ],
  ["activity.blocked", { guestActivity: 1, guestInterruptibility: 2 }],
  ["interruptibility", { guestInterruptibility: 0x20 }],
  ["interruptibility.both", { guestInterruptibility: 3, guestRflags: 0x202 }],
  ["interruptibility.sti", { guestInterruptibility: 1 }],
  ["interruptibility.smi", { guestInterruptibility: 4 }],
  ["pendingDebug", { guestPendingDebug: 0x10 }],
  ["pendingDebug.bs", { guestPendingDebug: 0x4000, guestInterruptibility: 2 }],
  ["pendingDebug.bs", { guestRflags: 0x102, guestInterruptibility: 2 }],
];

const injectionStates: Case[] = [
  ["if", inject(0x20, 0)],
  ["blocked", { ...inject(0x20, 0), guestRflags: 0x202, guestInterruptibility: 1 }],
  ["nmiBlocked", { ...inject(2, 2), guestInterruptibility: 2 }],
  [
    "virtualNmi",
    { ...inject(2, 2), pinBasedControls: 0x16 | 0x28, guestInterruptibility: 8 },
  ],
  ["activity", { ...inject(6, 3), guestActivity: 1 }],
  ["activity", { ...inject(0x20, 0), guestRflags: 0x202, guestActivity: 2 }],
  ["activity", { ...inject(2, 2), guestActivity: 3 }],
];

/** Cases whose failure has a qualification of its own. */
const qualified: (readonly [...Case, number])[] = [
  ["linkPointer", { vmcsLinkPointer: 0x4001 }, undefined, 4],
  ["linkPointer", { vmcsLinkPointer: PLACE.vmcs }, undefined, 4],
  ["linkPointer", { vmcsLinkPointer: PLACE.page }, undefined, 4],
  ...[0, 1, 2, 3].map((n): readonly [...Case, number] => [
    `pdpte${n}`,
    {
      guestCr4: 0x2020,
      secondaryControls: 2,
      eptPointer: 0x5e,
      [`guestPdpte${n}`]: 3,
    },
    undefined,
    2,
  ]),
  [
    "pdpte0",
    { guestCr4: 0x2020 },
    (b) => b.view.setUint32(0x6000, 3, true),
    2,
  ],
];

const tried = new Set<string>();

function run(prefix: string, [name, fields, setUp]: Case): Bench {
  const b = new Bench();
  for (const [field, value] of Object.entries(fields)) b.write(field, value);
  setUp?.(b);
  tried.add(`${prefix}.${name}`);
  return b;
}

function failsWithError(prefix: string, cases: Case[], error: number): void {
  for (const one of cases) {
    const b = run(prefix, one);
    const what = `${prefix}.${one[0]} ${Object.keys(one[1])}`;
    assertEquals([what, b.s.vmentry(1)], [what, STATUS.failValid]);
    assertEquals(b.check, `${prefix}.${one[0]}`, what);
    assertEquals(b.read("instructionError"), BigInt(error), what);
    assertEquals(b.view.getUint32(PLACE.vmcs + HEAD.launched, true), 0, "not launched");
  }
}

function failsAsExit(prefix: string, cases: Case[], qualification = 0): void {
  for (const one of cases) {
    const b = run(prefix, one);
    const what = `${prefix}.${one[0]} ${Object.keys(one[1])}`;
    assertEquals([what, b.s.vmentry(1)], [what, LEFT_AT_ONCE]);
    assertEquals(b.check, `${prefix}.${one[0]}`, what);
    assertEquals(b.read("exitReason"), BigInt(0x8000_0000 + EXIT_REASON.guestState), what);
    assertEquals(b.read("exitQualification"), BigInt(qualification), what);
    assertEquals(b.cpu("rip"), 0x1234n, "the host runs on");
    assertEquals(b.read("guestRip"), BigInt(one[1].guestRip ?? 0x7c00), "guest state stays");
  }
}

Deno.test("vmentry() fails with error 7 for each check on the controls", () => {
  failsWithError("vmx.controls", controls, VM_ERROR.controls);
  failsWithError("vmx.inject", injections, VM_ERROR.controls);
});

Deno.test("vmentry() fails with error 8 for each check on the host state", () => {
  failsWithError("vmx.host", hosts, VM_ERROR.host);
});

Deno.test("vmentry() leaves with reason 33 for each check on the guest state", () => {
  failsAsExit("vmx.guest", guests);
  failsAsExit("vmx.guest.inject", injectionStates);
  for (const [name, fields, setUp, qualification] of qualified) {
    failsAsExit("vmx.guest", [[name, fields, setUp]], qualification);
  }
});

Deno.test("every entry check has a case", () => {
  const entry = /^vmx\.(controls|inject|host|guest)\./;
  const missing = allChecks().map((c) => c.name).filter((n) => entry.test(n) && !tried.has(n));
  assertEquals(missing, []);
});

Deno.test("vmentry() accepts what stands at the edge of each check", () => {
  const good: Fields[] = [
    {},
    REAL,
    LONG,
    V86,
    { ...LONG, guestCsAccessRights: 0xa09b, guestRip: 0xffff_8000_0000_0000n },
    // Bit 47 is not looked at.
    { ...LONG, guestCsAccessRights: 0xa09b, guestRip: UNCANONICAL },
    { ...LONG, guestCsAccessRights: 0xa09b, guestRip: 0xffff_7fff_ffff_ffffn },
    { guestPendingDebug: 0x4000, guestInterruptibility: 2, guestRflags: 0x102 },
    { guestActivity: 1 },
    { guestDsAccessRights: 0x1_0000, guestDsLimit: 0x12345 },
    { guestCsAccessRights: 0xc09f },
    { ...UNRESTRICTED, guestCsAccessRights: 0xc093 },
    { cr3TargetCount: 4 },
    { guestCr4: 0x2020, secondaryControls: 2, eptPointer: 0x5e, guestPdpte2: 0x8001 },
    { vmcsLinkPointer: PLACE.other },
    { processorBasedControls: PRIMARY | 1 << 21, virtualApicAddress: 0x4000, tprThreshold: 0 },
  ];
  for (const fields of good) {
    const b = new Bench();
    for (const [field, value] of Object.entries(fields)) b.write(field, value);
    assertEquals([b.s.vmentry(1), b.check], [STATUS.succeed, "none"], Object.keys(fields).join());
  }
});

Deno.test("a check that has passed is made again once its fields are written", () => {
  const b = new Bench();
  assertEquals(b.s.vmentry(1), STATUS.succeed);
  b.s.interruptExit(-1);
  b.s.vmexit();
  for (const [field, value, check] of CHANGES) {
    const old = b.read(field);
    b.write(field, value);
    b.s.vmentry(0);
    assertEquals(b.check, check, field);
    b.write(field, old);
    assertEquals(b.s.vmentry(0), STATUS.succeed, field);
    b.s.interruptExit(-1);
    b.s.vmexit();
  }
});

const CHANGES: readonly (readonly [string, bigint | number, string])[] = [
  ["cr3TargetCount", 5, "vmx.controls.cr3Targets"],
  ["pinBasedControls", 0, "vmx.controls.pin"],
  ["hostRip", UNCANONICAL, "vmx.host.rip"],
  ["hostCr4", 0, "vmx.host.cr4"],
  ["guestCr0", 0, "vmx.guest.cr0"],
  ["guestSsAccessRights", 0xc0f3, "vmx.guest.ss.dpl"],
  ["guestRip", 1n << 40n, "vmx.guest.ripWide"],
  ["guestRflags", 0, "vmx.guest.rflags"],
  // Virtual-8086 mode asks for other segments.
  ["guestRflags", 0x2_0002, "vmx.guest.cs.v86"],
  ["guestInterruptibility", 1, "vmx.guest.interruptibility.sti"],
];

Deno.test("VMLAUNCH and VMRESUME want the launch state that is theirs", () => {
  const b = new Bench();
  assertEquals(b.s.vmentry(0), STATUS.failValid);
  assertEquals(b.read("instructionError"), BigInt(VM_ERROR.vmresumeNotLaunched));
  assertEquals(b.s.vmentry(1), STATUS.succeed);
  b.s.interruptExit(0x30);
  b.s.vmexit();
  assertEquals(b.s.vmentry(1), STATUS.failValid);
  assertEquals(b.read("instructionError"), BigInt(VM_ERROR.vmlaunchNotClear));
  b.i32[CPU.interruptibility >> 2] = 2;
  assertEquals(b.s.vmentry(0), STATUS.failValid);
  assertEquals(b.read("instructionError"), BigInt(VM_ERROR.blockedByMovSs));
  assertEquals(VMCS_REVISION >>> 31, 0);
});
