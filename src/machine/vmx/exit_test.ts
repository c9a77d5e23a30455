import { assertEquals } from "@std/assert";
import { EXIT_REASON } from "../../abi/x86/vmx.ts";
import { INTERCEPT } from "../system/intercepts.ts";
import { ABORT, CPU, type CpuCell, pdpte, segment, V } from "../state.ts";
import { HEAD } from "./layout.ts";
import { LEFT_AT_ONCE } from "./entry.ts";
import { STATUS } from "./operations.ts";
import { Bench, PLACE } from "./testing.ts";

const b = new Bench();
type Fields = Record<string, bigint | number>;

function enter(fields: Fields = {}): number {
  b.reset();
  for (const [name, value] of Object.entries(fields)) b.write(name, value);
  return b.s.vmentry(1);
}
function leave(): void {
  b.s.interruptExit(0x30);
  b.s.vmexit();
}
/** An entry of an MSR area. */
function msrEntry(at: number, msr: number, value: bigint): void {
  b.view.setUint32(at, msr, true);
  b.view.setUint32(at + 4, 0, true);
  b.view.setBigUint64(at + 8, value, true);
}

Deno.test("entry loads the guest's registers, exit saves them and loads the host's", () => {
  const guest: Record<string, bigint> = {
    guestRip: 0x7c00n,
    guestRsp: 0x8000n,
    guestCr3: 0x6000n,
    guestFsBase: 0x1234_5000n,
    guestGdtrBase: 0x9000n,
    guestIdtrLimit: 0x7ffn,
    guestSysenterCs: 8n,
    guestSysenterEip: 0x1000n,
    guestActivity: 1n,
    guestInterruptibility: 8n,
  };
  assertEquals(enter(guest), STATUS.succeed);
  const own: CpuCell[] = ["rip", "rsp", "cr3", "fs.base", "gdtr.base", "idtr.limit", "sysenterCs"];
  const fields = Object.values(guest);
  own.forEach((name, n) => assertEquals(b.cpu(name), fields[n], name));
  assertEquals([b.i32[V.nonRoot >> 2], b.i32[CPU.vmxMode >> 2]], [1, 2]);
  assertEquals([b.i32[CPU.activity >> 2], b.i32[CPU.interruptibility >> 2]], [1, 8]);
  // A guest outside IA-32e mode.
  assertEquals(b.cpu("efer"), 0x800n);
  b.u64[CPU.rip >> 3] = 0x7c10n;
  b.u64[CPU["es.base"] >> 3] = 0x55n;
  b.u64[CPU.cr3 >> 3] = 0x7000n;
  b.i32[CPU.interruptibility >> 2] = 2;
  leave();
  assertEquals([b.read("guestCr3"), b.read("guestInterruptibility")], [0x7000n, 2n]);
  assertEquals(b.cpu("efer"), 0xd00n);
  assertEquals(b.read("guestRip"), 0x7c10n);
  assertEquals(b.read("guestEsBase"), 0x55n);
  assertEquals(b.read("guestActivity"), 1n);
  assertEquals(
    [b.cpu("rip"), b.cpu("rsp"), b.cpu("cr3")],
    [0x1234n, 0x5678n, 0x5000n].map(
      (v, n) => n === 1 ? b.read("hostRsp") : v,
    ),
  );
  assertEquals([b.i32[V.nonRoot >> 2], b.i32[CPU.vmxMode >> 2]], [0, 1]);
  // 27.5.2: code is 64-bit, data is flat, the null selectors are unusable.
  assertEquals([b.attributes(1), b.attributes(0), b.attributes(7)], [0xa09b, 0x1_0000, 0x8b]);
  assertEquals(b.i32[(segment(7) >> 2) + 2], 0x67);
  assertEquals([b.cpu("dr7"), b.cpu("rflags")], [0x400n, 2n]);
  assertEquals(b.read("exitReason"), BigInt(EXIT_REASON.externalInterrupt));
  assertEquals(b.read("exitInterruptionInformation"), 0x8000_0030n);
});

Deno.test("PAT, EFER, debug controls and the timer are switched by their controls alone", () => {
  const pat = 0x0606_0606_0606_0606n;
  b.reset();
  const before = b.cpu("pat");
  enter({ guestPat: pat, guestDr7: 0x455 });
  assertEquals([b.cpu("pat"), b.cpu("dr7")], [before, b.cpu("dr7")]);
  enter({
    entryControls: 0x11ff | 1 << 14 | 1 << 15,
    exitControls: 0x0003_6fff | 0xf << 18,
    hostPat: 0x0404_0404_0404_0404n,
    hostEfer: 0xd00,
    guestPat: pat,
    guestEfer: 0x800,
    guestDr7: 0x455,
  });
  assertEquals([b.cpu("pat"), b.cpu("efer"), b.cpu("dr7")], [pat, 0x800n, 0x455n]);
  b.u64[CPU.efer >> 3] = 0x801n;
  leave();
  assertEquals([b.cpu("pat"), b.cpu("efer")], [0x0404_0404_0404_0404n, 0xd00n]);
  assertEquals([b.read("guestEfer"), b.read("guestPat")], [0x801n, pat]);
});

Deno.test("MSR areas are loaded at entry, stored and loaded at exit", () => {
  b.reset();
  msrEntry(0x4000, 0xc000_0082, 0x1111n);
  msrEntry(0x4010, 0xc000_0102, 0x2222n);
  msrEntry(0x4100, 0xc000_0082, 0n);
  msrEntry(0x4200, 0xc000_0082, 0x3333n);
  b.write("entryMsrLoadCount", 2);
  b.write("entryMsrLoadAddress", 0x4000);
  b.write("exitMsrStoreCount", 1);
  b.write("exitMsrStoreAddress", 0x4100);
  b.write("exitMsrLoadCount", 1);
  b.write("exitMsrLoadAddress", 0x4200);
  assertEquals(b.s.vmentry(1), STATUS.succeed);
  assertEquals([b.cpu("lstar"), b.cpu("kernelGsBase")], [0x1111n, 0x2222n]);
  b.u64[CPU.lstar >> 3] = 0x1234n;
  leave();
  assertEquals(b.view.getBigUint64(0x4108, true), 0x1234n);
  assertEquals(b.cpu("lstar"), 0x3333n);
});

Deno.test("an MSR that cannot be loaded fails the entry with its number", () => {
  for (const msr of [0xc000_0100, 0x9b]) {
    b.reset();
    msrEntry(0x4000, 0xc000_0082, 0n);
    msrEntry(0x4010, msr, 0n);
    b.write("entryMsrLoadCount", 2);
    b.write("entryMsrLoadAddress", 0x4000);
    assertEquals(b.s.vmentry(1), LEFT_AT_ONCE);
    assertEquals(b.read("exitReason"), BigInt(0x8000_0000 + EXIT_REASON.msrLoading));
    assertEquals(b.read("exitQualification"), 2n);
    assertEquals(b.check, "vmx.msr.load");
    assertEquals(b.cpu("rip"), 0x1234n);
    assertEquals(b.view.getUint32(PLACE.vmcs + HEAD.launched, true), 0);
  }
});

Deno.test("an MSR area where there is no memory reads as ones, and fails the entry", () => {
  b.reset();
  b.write("entryMsrLoadCount", 1);
  b.write("entryMsrLoadAddress", 0x8_0000_0000n);
  assertEquals(b.s.vmentry(1), LEFT_AT_ONCE);
  assertEquals(b.read("exitReason"), BigInt(0x8000_0000 + EXIT_REASON.msrLoading));
  assertEquals([b.read("exitQualification"), b.check], [1n, "vmx.msr.load"]);
});

Deno.test("an MSR that cannot be loaded at exit is a VMX abort", () => {
  enter({ exitMsrLoadCount: 1, exitMsrLoadAddress: 0x4000 });
  msrEntry(0x4000, 0xc000_0101, 0n);
  leave();
  assertEquals(b.view.getUint32(PLACE.vmcs + HEAD.abort, true), 4);
});

Deno.test("a check of the entry stays noted when the host's MSRs cannot be loaded either", () => {
  b.reset();
  msrEntry(0x4000, 0xc000_0101, 0n);
  const fields = { exitMsrLoadCount: 1, exitMsrLoadAddress: 0x4000, guestCr3: 1n << 40n };
  for (const [name, value] of Object.entries(fields)) b.write(name, value);
  b.s.vmentry(1);
  assertEquals(b.read("exitReason"), BigInt(0x8000_0000 + EXIT_REASON.guestState));
  assertEquals([b.check, b.u64[V.checkA >> 3]], ["vmx.guest.cr3", 1n << 40n]);
  assertEquals(b.view.getUint32(PLACE.vmcs + HEAD.abort, true), 4);
});

Deno.test("a trap that MOV SS holds back is saved as pending: the guest can be entered again", () => {
  const shadowed = (flags: bigint, debugctl: bigint) => {
    enter();
    b.u64[CPU.rflags >> 3] = flags;
    b.u64[CPU.debugctl >> 3] = debugctl;
    b.i32[CPU.interruptibility >> 2] = 2;
    leave();
    b.write("guestDebugctl", debugctl);
    const pending = b.read("guestPendingDebug");
    return [pending, b.s.vmentry(0)];
  };
  assertEquals(shadowed(0x102n, 0n), [0x4000n, STATUS.succeed]);
  assertEquals(shadowed(0x002n, 0n), [0n, STATUS.succeed]);
  assertEquals(shadowed(0x102n, 2n), [0n, STATUS.succeed], "BTF: branches alone are traced");
});

Deno.test("PAE PDPTEs come from memory without EPT, from the VMCS with it", () => {
  b.reset();
  b.write("guestCr4", 0x2020);
  b.view.setBigUint64(0x6008, 0x8001n, true);
  assertEquals(b.s.vmentry(1), STATUS.succeed);
  assertEquals(b.cpu("pdpte1"), 0x8001n);
  enter({ guestCr4: 0x2020, secondaryControls: 2, eptPointer: 0x9000 | 0x1e, guestPdpte2: 0xa001 });
  assertEquals(b.cpu("pdpte2"), 0xa001n);
  assertEquals(b.u64[V.eptp >> 3], 0x901en);
});

Deno.test("PAE PDPTEs are saved where PAE paging is used with EPT; else their fields stay as they are", () => {
  const withEpt = { secondaryControls: 2, eptPointer: 0x9000 | 0x1e };
  const saved = (fields: Record<string, number>) => {
    enter({ ...fields, guestPdpte1: 0xb001 });
    b.u64[pdpte(1) >> 3] = 0xc001n;
    leave();
    return b.read("guestPdpte1");
  };
  assertEquals(saved({ ...withEpt, guestCr4: 0x2020 }), 0xc001n);
  assertEquals(saved({ ...withEpt, guestCr4: 0x2000 }), 0xb001n, "2-level paging");
  assertEquals(saved({ guestCr4: 0x2020 }), 0xb001n, "without EPT");
});

Deno.test("the preemption timer counts instructions and is saved", () => {
  enter({
    pinBasedControls: 0x16 | 0x40,
    exitControls: 0x0003_6ffb | 1 << 22,
    preemptionTimer: 10,
  });
  assertEquals(b.s.vmxBudget(1000), 320);
  b.s.vmxElapsed(33);
  assertEquals(b.s.vmxBoundary(), 0);
  leave();
  assertEquals(b.read("preemptionTimer"), 9n);
  assertEquals(b.s.vmentry(0), STATUS.succeed);
  b.s.vmxElapsed(288);
  assertEquals(b.s.vmxBoundary(), 1);
  b.s.vmexit();
  assertEquals(b.read("exitReason"), BigInt(EXIT_REASON.preemptionTimer));
  assertEquals(b.read("preemptionTimer"), 0n);
  // A timer of 0 fires before the first instruction.
  assertEquals(b.s.vmentry(0), LEFT_AT_ONCE);
});

Deno.test("TSC offset is in force in the guest only", () => {
  enter({ processorBasedControls: 0x8400_617a, tscOffset: -5n });
  assertEquals(b.cpu("tscOffset"), 0xffff_ffff_ffff_fffbn);
  leave();
  assertEquals(b.cpu("tscOffset"), 0n);
});

Deno.test("the TLBs are emptied only when the translation context changes", () => {
  const slot = 0x4000 >> 3;
  const mark = () => {
    b.u64[slot] = 0x1234_5000n;
    b.i32[V.fills >> 2] = 1 << 20;
  };
  const kept = () => b.u64[slot] === 0x1234_5000n;
  const around = (change: () => void): boolean => {
    mark();
    leave();
    change();
    assertEquals(b.s.vmentry(0), STATUS.succeed);
    return kept();
  };
  enter();
  assertEquals(around(() => {}), true);
  assertEquals(around(() => b.write("guestRip", 0x7d00)), true);
  assertEquals(around(() => b.write("guestCr3", 0x7000)), false);
  assertEquals(around(() => b.write("guestCr0", 0x8001_0031n)), false);
  assertEquals(around(() => b.write("guestCr4", 0x2010)), false);
  // A root that runs code of its own must not see the guest's translations.
  b.i32[V.hostedRoot >> 2] = 0;
  assertEquals(around(() => {}), false);
});

Deno.test("exits note the instruction, the event and what was being delivered", () => {
  enter({ exceptionBitmap: 1 << 13 });
  b.i32[V.vector >> 2] = 13;
  b.i32[V.eventType >> 2] = 3;
  b.i32[V.hasError >> 2] = 1;
  b.i32[V.errorCode >> 2] = 0x18;
  b.i32[V.vectoring >> 2] = 0x8000_0b0b | 0;
  b.i32[V.vectoringError >> 2] = 0x28;
  b.s.vectoringExit(0);
  assertEquals(b.i32[V.abort >> 2], ABORT.exit);
  b.s.vmexit();
  assertEquals(b.read("exitInterruptionInformation"), 0x8000_0b0dn);
  assertEquals(b.read("exitInterruptionErrorCode"), 0x18n);
  assertEquals(b.read("idtVectoringInformation"), 0x8000_0b0bn);
  assertEquals(b.read("idtVectoringErrorCode"), 0x28n);
  // A fault's RFLAGS image has RF.
  assertEquals(b.read("guestRflags"), 0x1_0002n);
  assertEquals(b.i32[V.abort >> 2], 0);
});

Deno.test("NMI unblocking due to IRET is noted by fault and EPT violation, and by nothing else", () => {
  const UNBLOCKED = 0x1000n;
  /** An IRET given up by #GP or #DF (vector), or by the EPT violation (0). */
  const given = (vector: number, fields: Fields, vectoring = 0) => {
    enter({ exceptionBitmap: 1 << 13 | 1 << 8, guestInterruptibility: 8, ...fields });
    b.s.intercept(INTERCEPT.iret, 0n as unknown as number);
    b.i32[V.vectoring >> 2] = vectoring;
    b.i32[V.vector >> 2] = vector;
    b.i32[V.eventType >> 2] = 3;
    b.i32[V.hasError >> 2] = 0;
    if (vector) b.s.vectoringExit(0);
    else b.i32[V.exitReason >> 2] = EXIT_REASON.eptViolation;
    b.s.vmexit();
    return [
      b.read("exitInterruptionInformation") & UNBLOCKED,
      b.read("exitQualification") & UNBLOCKED,
      b.read("guestInterruptibility"),
    ];
  };
  const virtual = { pinBasedControls: 0x16 | 0x28 }, exiting = { pinBasedControls: 0x16 | 8 };
  for (const fields of [{}, virtual]) {
    assertEquals(given(13, fields), [UNBLOCKED, 0n, 0n]);
    assertEquals(given(0, fields), [0n, UNBLOCKED, 0n]);
    assertEquals(given(0, { ...fields, guestInterruptibility: 0 }), [0n, 0n, 0n]);
    assertEquals(given(0, fields, 0x8000_0021 | 0), [0n, 0n, 0n]);
    assertEquals(given(8, fields), [0n, 0n, 0n]);
  }
  // "NMI exiting" alone: the blocking is not IRET's.
  assertEquals(given(13, exiting), [0n, 0n, 8n]);
  assertEquals(given(0, exiting), [0n, 0n, 8n]);
});

Deno.test("page-fault mask and match turn the bitmap around where they do not match", () => {
  const leaves = (bitmap: number, mask: number, match: number, code: number): boolean => {
    enter({
      exceptionBitmap: bitmap,
      pageFaultErrorCodeMask: mask,
      pageFaultErrorCodeMatch: match,
    });
    b.i32[V.vector >> 2] = 14;
    b.i32[V.eventType >> 2] = 3;
    b.i32[V.errorCode >> 2] = code;
    b.s.vectoringExit(0);
    return b.i32[V.abort >> 2] === ABORT.exit;
  };
  assertEquals(leaves(1 << 14, 0, 0, 2), true);
  assertEquals(leaves(1 << 14, 2, 2, 2), true);
  assertEquals(leaves(1 << 14, 2, 2, 4), false);
  assertEquals(leaves(0, 2, 2, 4), true);
  assertEquals(leaves(0, 0, 0, 4), false);
});
