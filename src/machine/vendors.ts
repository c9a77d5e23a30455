/**
 * Where Intel's and AMD's processors differ: THE list. Semantics ask by a difference's name and in no
 * other way ({@linkcode asAmd}, {@linkcode isAmd}); each name has a test for both models in
 * vendors_test.ts. What SVM and VMX are for themselves (their instructions, MSRs, control structures
 * and nested tables) stands in svm/ and vmx/ and not here; CPUID in cpuid_models.ts; MSRs that one
 * vendor has and the other has not in system/msrs.ts.
 *
 * Where the manuals are silent it says "seen": on AMD's side on processors of family 1Ah (Zen 5), on
 * Intel's on those that `tests/oracle` ran on.
 */
import { V } from "./state.ts";
import { cell } from "./linkage.ts";
import type { Expr } from "./wasm/expr.ts";

/** Whose processor it is: Intel's with VMX, AMD's with SVM. */
export type CpuModel = "intel" | "amd";
/** All of them. */
export const CPU_MODELS: readonly ["intel", "amd"] = ["intel", "amd"];

/** One difference: what either does, and where that is written. */
interface Difference {
  readonly intel: string;
  readonly amd: string;
  readonly source: string;
}

/** Differences that the machine models, by name. */
export const DIFFERENCES = {
  "branch.66": {
    intel: "66 before a near branch in 64-bit mode is ignored",
    amd:
      "it makes the operand size 16: RIP is cut, CALL and RET move 2 bytes, E8 and E9 have rel16",
    source: "SDM 2 JMP, CALL, RET, Jcc, LOOP; APM 3 1.2.7 and CALL (Near)",
  },
  "branch.call-check": {
    intel: "a near CALL stores its return address, then checks the target",
    amd: "if the target is bad it stores nothing, though faults of the store come first",
    source: "seen",
  },
  "far.call-check": {
    intel: "CALL ptr16:32 checks the target against the limit before it stores, CALL m16:32 after",
    amd: "both store the return address first",
    source: "seen",
  },
  "far.pointer-rexw": {
    intel: "far JMP and CALL, LSS, LFS and LGS with REX.W take a pointer m16:64",
    amd: "REX.W does not widen the pointer: m16:32, the offset zero-extended",
    source: "SDM 2 JMP, CALL, LDS; APM 3 JMP (Far), CALL (Far), LDS",
  },
  "far.outer-stack": {
    intel: "RETF and IRET to another privilege level check CS, then read SS:eSP from the stack",
    amd: "they read SS:eSP first, whether CS is good or not",
    source: "SDM 2 RET, IRET; APM 3 RET (Far), IRET: the pseudocode",
  },
  "bound.order": {
    intel: "BOUND checks the place of both bounds, then reads them",
    amd: "it reads the lower bound before it looks at the place of the upper",
    source: "seen",
  },
  "movsxd.16": {
    intel: "MOVSXD with a 16-bit operand reads 2 bytes of memory",
    amd: "it reads 4",
    source: "SDM 2 MOVSX/MOVSXD; APM 3 MOVSXD; seen",
  },
  "segment.push": {
    intel: "PUSH Sreg with a 32-bit operand writes the low word only",
    amd: "it writes 4 bytes, the selector zero-extended",
    source: "SDM 2 PUSH; APM 3 PUSH",
  },
  "segment.pop": {
    intel: "POP Sreg, RETF and IRET read the 2 bytes of a selector",
    amd: "they read the whole operand",
    source: "seen",
  },
  "segment.wrap": {
    intel: "an operand that goes past offset FFFF_FFFFh of a 4 GiB segment wraps",
    amd: "it is outside the limit: #GP(0), #SS(0) on the stack",
    source: "SDM 3 5.3 leaves it open; APM 2 4.12; seen",
  },
  "string.flags": {
    intel: "REP CMPS and SCAS set the flags when they end; interrupted, the flags are the old ones",
    amd: "every iteration sets them",
    source: "SDM 2 REP; APM 3 1.2.6; seen",
  },
  "string.count": {
    intel: "REP with 67 in 64-bit mode clears RCX's upper half even if no iteration completes",
    amd: "it leaves RCX alone then",
    source: "seen",
  },
  "string.order": {
    intel: "CMPS reads [rDI], then [rSI]",
    amd: "CMPS reads [rSI], then [rDI]",
    source: "seen",
  },
  "mmx.store-top": {
    intel: "an MMX store resets TOP even if it then faults",
    amd: "a store that faults changes nothing",
    source: "seen",
  },
  "x87.opcode": {
    intel: "FOP is updated by instructions with an unmasked exception only",
    amd: "every x87 instruction that is not a control instruction updates FOP",
    source: "SDM 1 8.1.9.1; APM 1 6.2.2",
  },
  "x87.pointers": {
    intel: "FXSAVE and XSAVE always store FOP, FIP and FDP",
    amd: "they store zeros unless FSW.ES is set (RstrFpErrPtrs)",
    source: "SDM 1 10.5.1; APM 5 FXSAVE; APM 3 E.4.6, Fn8000_0008_EBX[2]",
  },
  "x87.fdp": {
    intel: "FXRSTOR64 and XRSTOR64 make FIP canonical",
    amd: "they make FIP and FDP canonical",
    source: "SDM 1 10.5.1.2; seen",
  },
  "x87.store-probe": {
    intel:
      "x87 stores of ten bytes may leave eight of them where the rest faults; a store that an " +
      "unmasked exception stops looks at no memory",
    amd: "faults of the whole operand come first, even if nothing is to be stored",
    source: "seen",
  },
  "sse.unaligned": {
    intel: "unaligned 16-byte operands (MOVUPS, LDDQU, PCMPISTRI) are not checked for #AC",
    amd: "with alignment checks on they are: #AC",
    source: "SDM 3 6.15, #AC; APM 2 8.2.18; seen",
  },
  "sse.misaligned": {
    intel: "bit 17 of MXCSR is reserved",
    amd: "MXCSR.MM: operands of arithmetic need not be aligned, #AC where that is checked",
    source: "APM 1 4.2.2; APM 3 E.4.2, Fn8000_0001_ECX[7]",
  },
  "sse.dot-order": {
    intel: "DPPS and DPPD add in an order that differs by element, and NaNs show it",
    amd: "one order for all elements: lower with higher, pairs first",
    source: "seen",
  },
  "sysenter.long": {
    intel: "SYSENTER and SYSEXIT exist in IA-32e mode",
    amd: "#UD in long mode; SYSEXIT looks at CPL first, #GP(0)",
    source: "SDM 2 SYSENTER; APM 3 SYSENTER, SYSEXIT; the order seen",
  },
  "syscall.legacy": {
    intel: "SYSCALL and SYSRET outside 64-bit mode: #UD",
    amd: "they exist there, too",
    source: "SDM 2 SYSCALL; APM 3 SYSCALL",
  },
  "sysret.canonical": {
    intel: "SYSRET to an address that is not canonical: #GP(0) with CPL 0",
    amd: "#GP(0) at the fetch, with CPL 3",
    source: "SDM 2 SYSRET; APM 3 SYSRET",
  },
  "sysret.ss": {
    intel: "SYSRET loads SS whole: flat, writable, DPL 3",
    amd: "it loads the selector; base, limit and attributes stay",
    source: "SDM 2 SYSRET; APM 3 SYSRET",
  },
  "cr.lock-cr8": {
    intel: "LOCK MOV CR0: #UD",
    amd: "LOCK MOV CR0 is MOV CR8 (AltMovCr8)",
    source: "APM 3 MOV CRn; E.4.2, Fn8000_0001_ECX[4]",
  },
  "ud.length": {
    intel: "UD0 and UD1 have ModRM and an operand, which are fetched before #UD",
    amd: "they are two bytes",
    source: "SDM 2 UD; APM 3 UD0, UD1",
  },
  "mov-ss.breakpoints": {
    intel: "MOV SS and POP SS hold back instruction breakpoints",
    amd: "they do not",
    source: "SDM 3 6.8.3; APM 2 8.5.1",
  },
  "msr.vendor": {
    intel: "MSRs of Intel's architecture alone exist",
    amd: "MSRs of AMD's alone exist",
    source: "SDM 4 2.1; APM 2 appendix A",
  },
} as const satisfies Record<string, Difference>;

/** The name of a difference. */
export type Way = keyof typeof DIFFERENCES;

/*
 * Differences that the machine does not model, and what it does instead:
 * - flags that the manuals leave undefined (MUL, DIV, shifts, AAA, DAA): one value for both
 *   vendors
 * - x87 transcendentals: one algorithm for both, within an ulp of either; AMD's set UE where an
 *   ulp decides whether the result is tiny
 * - RCPPS and RSQRTPS: the exact quotient, rounded to 12 bits, for both
 * - SYSENTER_ESP and SYSENTER_EIP: 64 bits that must be canonical, on AMD's too (APM 2 6.1.3)
 * - PAE paging: PDPTEs are loaded with CR3, also where AMD's read them at each walk (APM 2
 *   5.2.3); guests of SVM with nested paging do
 * - EFER.LMSLE, FFXSR and TCE, and with them segment limits in 64-bit mode: bits that do not
 *   exist
 * - 3DNow!, SSE4a, LZCNT, TZCNT, XOP, TBM: not there; F3 0F BC and BD are BSF and BSR
 * - a null selector in 64-bit mode clears the base, as on Intel's and from AMD's Zen 2 on;
 *   older ones keep it
 * - split locks, Intel's #AC for them and AMD's bus-lock trap: nothing is special
 * - Intel's FDP_EXCPTN_ONLY and the deprecation of FCS and FDS: they are kept, as before them
 * - 57-bit linear addresses: none; FIP and FDP are canonical in 48 bits
 * - LOCK VERW, which processors of family 1Ah execute: #UD, as the manuals have it
 * - DR6.BLD and RTM, MSRs of single families: see system/msrs.ts for those that exist
 */

/*
 * Where the manuals of both are silent, and whom the machine follows:
 * - upper halves of general registers after a switch to a 16-bit TSS are FFFFh: the 386
 *   (test386)
 * - BSF and BSR of zero leave the destination: AMD says so (APM 3), Intel's do it, too
 * - BSWAP of a 16-bit register gives zero: seen on both
 * - PAUSE with REX.B is PAUSE, and no XCHG: seen on both
 * - the selector of a far return is read before the offset: seen on both
 * - SALC, FFREEP, INT1, UD0 and the aliases of FCOM, FCOMP and FSTP are there: all processors
 * - FXSAVE probes the last byte's page, then the first's: seen on both
 * - an access that no device answers reads ones
 */

/** Not zero on AMD's processors. The name says for which difference that is asked. */
export const asAmd = (_way: Way): Expr => cell(V.amd);

/** The same outside generated code. */
export const isAmd = (i32: Int32Array, _way: Way): boolean => i32[V.amd >> 2] !== 0;
