/**
 * The rules of CR0, CR3, CR4 and EFER, each said once: which bits there are, what a write must not do,
 * and which writes load the page-directory pointers. The processor is generated from them, and the
 * hypervisor holds them against the writes that it emulates (SDM 2 MOV CR, SDM 3 2.2.1, 2.5 and 4.4.1).
 */
import { CR0, CR4, EFER } from "../../abi/x86/cr.ts";
import { PAGING, pagingOf } from "../mmu/modes.ts";

const all = (bits: Readonly<Record<string, number>>): number =>
  Object.values(bits).reduce((sum, bit) => (sum | bit) >>> 0, 0);

/** Bits of CR4 and EFER that exist only with a feature of CPUID. */
export const CR4_NEEDS: Readonly<Record<string, number>> = {
  vme: CR4.VME | CR4.PVI,
  tsc: CR4.TSD,
  de: CR4.DE,
  pse: CR4.PSE,
  pae: CR4.PAE,
  mce: CR4.MCE,
  pge: CR4.PGE,
  fxsr: CR4.OSFXSR,
  sse: CR4.OSXMMEXCPT,
  umip: CR4.UMIP,
  vmx: CR4.VMXE,
  fsgsbase: CR4.FSGSBASE,
  pcid: CR4.PCIDE,
  xsave: CR4.OSXSAVE,
  smep: CR4.SMEP,
  smap: CR4.SMAP,
};
export const EFER_NEEDS: Readonly<Record<string, number>> = {
  syscall: EFER.SCE,
  lm: EFER.LME | EFER.LMA,
  nx: EFER.NXE,
  svm: EFER.SVME,
};
/** Bits that the machine knows; what a processor has of CR4 and EFER follows from its CPUID. */
export const CR0_KNOWN = all(CR0);
export const CR4_KNOWN = all(CR4_NEEDS) | CR4.PCE;
export const EFER_KNOWN = all(EFER);

/** What the rules ask for: the value that is written and the one before, the registers, CS's attributes. */
export type RuleOperand = "now" | "old" | "cr0" | "cr3" | "cr4" | "efer" | "cs";

/** Of each operand all bits of `has` are set, none of `lacks`, and of `some` one at least. */
export type Condition = Partial<
  Readonly<
    Record<RuleOperand, { readonly has?: number; readonly lacks?: number; readonly some?: number }>
  >
>;

/** CS.L. */
const L = 0x2000;

/** What no state may be, and no write may lead to. */
export const FORBIDDEN = {
  pagingWithoutProtection: { now: { has: CR0.PG, lacks: CR0.PE } },
  writeThroughWithoutDisable: { now: { has: CR0.NW, lacks: CR0.CD } },
  /** Paging begins with EFER.LME, but without PAE. */
  longWithoutPae: { now: { has: CR0.PG }, efer: { has: EFER.LME }, cr4: { lacks: CR4.PAE } },
} as const satisfies Record<string, Condition>;

/** A write that gets #GP(0) when one of the conditions holds. */
export interface Rule {
  readonly name: string;
  /** What was wrong: {a} stands for the operand of `shows`. */
  readonly text: string;
  readonly source: string;
  readonly shows: "now" | "cr4";
  readonly when: readonly Condition[];
}

const MOV_CR = "SDM 2 MOV CR";
const turnsOn = { now: { has: CR0.PG }, old: { lacks: CR0.PG } } as const;
const turnsOff = { now: { lacks: CR0.PG }, old: { has: CR0.PG } } as const;
const turnsOnPcide = { now: { has: CR4.PCIDE }, old: { lacks: CR4.PCIDE } } as const;

/** What writes must not do, besides setting bits that are not there. */
export const RULES: Readonly<Record<"cr0" | "cr4" | "efer", readonly Rule[]>> = {
  cr0: [
    {
      name: "cr0.combination",
      text: "MOV to CR0: {a} has PG without PE, or NW without CD",
      source: MOV_CR,
      shows: "now",
      when: [FORBIDDEN.pagingWithoutProtection, FORBIDDEN.writeThroughWithoutDisable],
    },
    {
      name: "cr0.pae",
      text: "CR0.PG is set with EFER.LME, but CR4 {a} has no PAE or CS.L is set",
      source: MOV_CR,
      shows: "cr4",
      when: [
        { ...turnsOn, efer: { has: EFER.LME }, cr4: { lacks: CR4.PAE } },
        { ...turnsOn, efer: { has: EFER.LME }, cs: { has: L } },
      ],
    },
    {
      name: "cr0.leave",
      text: "MOV to CR0: {a} clears PG in 64-bit mode or with CR4.PCIDE",
      source: MOV_CR,
      shows: "now",
      when: [
        { ...turnsOff, efer: { has: EFER.LMA }, cs: { has: L } },
        { ...turnsOff, cr4: { has: CR4.PCIDE } },
      ],
    },
  ],
  cr4: [
    {
      name: "cr4.pae",
      text: "MOV to CR4: {a} clears PAE in IA-32e mode",
      source: MOV_CR,
      shows: "now",
      when: [{ now: { lacks: CR4.PAE }, efer: { has: EFER.LMA } }],
    },
    {
      name: "cr4.pcide",
      text: "MOV to CR4: {a} sets PCIDE outside IA-32e mode or with CR3[11:0] not 0",
      source: MOV_CR,
      shows: "now",
      when: [
        { ...turnsOnPcide, efer: { lacks: EFER.LMA } },
        { ...turnsOnPcide, cr3: { some: 0xfff } },
      ],
    },
  ],
  efer: [
    {
      name: "efer.lme",
      text: "WRMSR EFER: {a} changes LME while paging is on",
      source: "SDM 3 2.2.1",
      shows: "now",
      when: [
        { now: { has: EFER.LME }, old: { lacks: EFER.LME }, cr0: { has: CR0.PG } },
        { now: { lacks: EFER.LME }, old: { has: EFER.LME }, cr0: { has: CR0.PG } },
      ],
    },
  ],
};

/** Whether a condition holds of these values. */
function holds(condition: Condition, value: (of: RuleOperand) => number): boolean {
  return Object.entries(condition).every(([of, { has = 0, lacks = 0, some }]) => {
    const bits = value(of as RuleOperand);
    return (bits & (has | lacks)) === (has | 0) && (some === undefined || (bits & some) !== 0);
  });
}

/** Whether a write breaks a rule; values are words. */
export function breaksRule(
  register: keyof typeof RULES,
  value: (of: RuleOperand) => number,
): boolean {
  return RULES[register].some(({ when }) => when.some((condition) => holds(condition, value)));
}

/** Bits whose change loads the page-directory pointers of PAE paging anew (SDM 3 4.4.1). */
export const LOADS_PDPTES = {
  0: CR0.PG | CR0.CD | CR0.NW,
  4: CR4.PAE | CR4.PGE | CR4.PSE | CR4.SMEP,
} as const;

/** Words of the registers say PAE paging: the processor holds four page-directory pointers. */
export const holdsPdptes = (cr0: number, cr4: number, efer: number): boolean =>
  pagingOf(cr0, cr4, efer) === PAGING.pae;
