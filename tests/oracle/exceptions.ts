/**
 * THE closed list of differences between a subject and the host's CPU that are allowed. Nothing else
 * is: a difference that fits no entry fails. Each entry names its source in the manual, applies to
 * named instructions only, forgives named parts of the result only, and counts its hits (cases in
 * which it was needed).
 */
import type { HostVendor } from "./host.ts";
import { type Case, FX, type Result } from "./state.ts";
import { type Instruction, isX87 } from "./instruction.ts";

/** Status flags in RFLAGS. */
export const CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800;

/** One allowed difference. */
export interface Allowance {
  id: string;
  /** Volume and section. */
  source: string;
  hits: number;
  /** Whose hosts need it; both vendors' if absent. */
  vendor?: HostVendor;
  /** Flags of RFLAGS that are undefined after this case. */
  flags?: (i: Instruction, test: Case) => number;
  /** Bits of the x87 status word that are undefined. */
  status?: (i: Instruction, test: Case) => number;
  /** Units in the last place by which x87 registers may differ. */
  ulp?: (i: Instruction) => number;
  /** Relative difference of packed singles in XMM registers, and the registers' elements. */
  relative?: (i: Instruction) => number;
  /** Byte range of the FXSAVE image that may differ. */
  image?: (i: Instruction, test: Case) => [from: number, to: number] | undefined;
  /** Bytes of memory that may differ, relative to the memory operand: [from, to) pairs. */
  memory?: (i: Instruction) => readonly [from: number, to: number][] | undefined;
  /** Any other part of the result, by name ("memory", "gpr0", "exception"), given the host's. */
  other?: (i: Instruction, test: Case, field: string, expected: Result) => boolean;
}

/** The list for that vendor's hosts, with hit counters at zero. */
export function allowances(vendor: HostVendor): Allowance[] {
  return LIST.filter((a) => !a.vendor || a.vendor === vendor).map((a) => ({ ...a, hits: 0 }));
}

type Entry = Omit<Allowance, "hits">;

const FLAG_RULES: Entry[] = [
  flags("AND, OR, XOR, TEST: AF", "SDM vol 2, AND, OR, XOR, TEST: Flags Affected", (i) => {
    const row = i.opcode & ~7;
    const plain = [0x08, 0x20, 0x30].includes(row) && (i.opcode & 7) < 6;
    const group1 = i.opcode >= 0x80 && i.opcode <= 0x83 && [1, 4, 6].includes(i.reg);
    const test = [0x84, 0x85, 0xa8, 0xa9].includes(i.opcode) ||
      (i.opcode & ~1) === 0xf6 && i.reg < 2;
    return plain || group1 || test ? AF : 0;
  }),
  flags(
    "SHL, SHR, SAR: AF, OF and CF by count",
    "SDM vol 2, SAL/SAR/SHL/SHR: Flags Affected",
    shift,
  ),
  flags("ROL, ROR, RCL, RCR: OF for counts other than 1", "SDM vol 2, RCL/RCR/ROL/ROR", (i, t) => {
    if (!isShift(i) || i.reg > 3) return 0;
    return shiftCount(i, t) === 1 ? 0 : OF;
  }),
  flags(
    "SHLD, SHRD: AF; OF for counts above 1; all above the size",
    "SDM vol 2, SHLD, SHRD",
    (i, t) => {
      if (![0x1a4, 0x1a5, 0x1ac, 0x1ad].includes(i.opcode)) return 0;
      const count = doubleShiftCount(i, t);
      if (count === 0) return 0;
      if (count > i.size) return CF | PF | AF | ZF | SF | OF;
      return count > 1 ? AF | OF : AF;
    },
  ),
  flags("MUL, IMUL: SF, ZF, AF, PF", "SDM vol 2, MUL, IMUL: Flags Affected", (i) => {
    const one = (i.opcode & ~1) === 0xf6 && (i.reg === 4 || i.reg === 5);
    return one || [0x69, 0x6b, 0x1af].includes(i.opcode) ? SF | ZF | AF | PF : 0;
  }),
  flags("DIV, IDIV: all status flags", "SDM vol 2, DIV, IDIV: Flags Affected", (i) => {
    return (i.opcode & ~1) === 0xf6 && i.reg >= 6 ? CF | PF | AF | ZF | SF | OF : 0;
  }),
  flags("AAA, AAS: OF, SF, ZF, PF", "SDM vol 2, AAA, AAS", one([0x37, 0x3f], OF | SF | ZF | PF)),
  flags("AAM, AAD: OF, AF, CF", "SDM vol 2, AAM, AAD", one([0xd4, 0xd5], OF | AF | CF)),
  flags("DAA, DAS: OF", "SDM vol 2, DAA, DAS", one([0x27, 0x2f], OF)),
  flags("BSF, BSR: all but ZF", "SDM vol 2, BSF, BSR", one([0x1bc, 0x1bd], CF | PF | AF | SF | OF)),
  flags("BT, BTS, BTR, BTC: OF, SF, AF, PF", "SDM vol 2, BT", (i) => {
    const bits = [0x1a3, 0x1ab, 0x1b3, 0x1bb].includes(i.opcode) || i.opcode === 0x1ba;
    return bits ? OF | SF | AF | PF : 0;
  }),
];

const X87_RULES: Entry[] = [
  {
    id: "x87 C0, C2, C3 where undefined",
    source: "SDM vol 1, 8.1.3.3 and table 8-1; vol 2, each instruction: FPU Flags Affected",
    status: undefinedConditions,
  },
  {
    id: "x87 transcendentals within 1 ulp",
    source: "SDM vol 1, 8.3.10 (transcendental instruction accuracy)",
    ulp: (i) => isTranscendental(i) ? 1 : 0,
    // C1 tells the rounding direction of the value, so it goes with it.
    status: (i) => isTranscendental(i) ? 0x200 : 0,
  },
  {
    id: "x87 FOP: kept on this host unless an unmasked exception comes",
    source: "SDM vol 1, 8.1.9.1 (fopcode compatibility mode)",
    vendor: "intel",
    image: (i) => isX87(i) ? [FX.fop, FX.fop + 2] : undefined,
  },
  {
    id: "x87 FDP: on this host updated by unmasked exceptions only",
    source: "SDM vol 1, 8.1.8; CPUID.7.0:EBX[6] (FDP_EXCPTN_ONLY)",
    vendor: "intel",
    image: (i) => isX87(i) ? [FX.fdp, FX.fdp + 8] : undefined,
  },
];

/** An environment of FNSTENV and FNSAVE: FIP stays, FCS, FOP, FDP and FDS are free. */
const ENVIRONMENT: Record<number, readonly [number, number][]> = {
  16: [[8, 10], [10, 14]],
  32: [[16, 26]],
};

X87_RULES.push({
  id: "x87 FCS, FDS (this host stores 0), FDP and FOP in FNSTENV's and FNSAVE's image",
  vendor: "intel",
  source: "SDM vol 1, 8.1.8 and 8.1.9; CPUID.7.0:EBX[13] (FCS and FDS deprecated), EBX[6]",
  memory: (i) => {
    const stores = (i.opcode === 0xd9 || i.opcode === 0xdd) && i.reg === 6 && i.mod !== 3;
    return stores ? ENVIRONMENT[i.size === 16 ? 16 : 32] : undefined;
  },
}, {
  id: "FXSAVE's FOP, FCS, FDP, FDS and MXCSR_MASK",
  vendor: "intel",
  source: "SDM vol 1, 10.5.1 and 11.6.6; as above",
  memory: (i) =>
    i.opcode === 0x1ae && i.reg === 0 && i.mod !== 3
      ? [[6, 8], [12, 14], [16, 22], [28, 32]]
      : undefined,
});

X87_RULES.push({
  id: "FXRSTOR64: bits 63 to 48 of FIP, which a host with 57-bit linear addresses keeps",
  source: "SDM vol 1, 10.5.1.2: processors make FIP canonical; vol 1, 3.3.7.1",
  image: (i) => isFxrstor(i) ? [FX.fip + 6, FX.fip + 8] : undefined,
}, {
  id: "FXRSTOR64: bits 63 to 48 of FDP, the same",
  source: "APM vol 2, 5.1 (five-level paging); seen",
  vendor: "amd",
  image: (i) => isFxrstor(i) ? [FX.fdp + 6, FX.fdp + 8] : undefined,
}, {
  id: "x87 transcendentals: UE where an ulp decides whether the result is tiny",
  source: "APM vol 1, 6.4.5.1 (accuracy of transcendental results)",
  vendor: "amd",
  status: (i, { state }) => isTranscendental(i) && leastOperand(state.fx) ? 0x10 : 0,
  // Unmasked, it scales the result.
  other: (i, { state: { fx } }, field) =>
    isTranscendental(i) && leastOperand(fx) && !(fx[FX.fcw] & 0x10) &&
    ["fsw", "fop", "fip", "st0"].includes(field),
});

const isFxrstor = (i: Instruction) => i.opcode === 0x1ae && i.reg === 1 && i.mod !== 3;

/** ST(0) is a denormal, or has the least exponent of a normal number. */
function leastOperand(fx: Uint8Array): boolean {
  return ((fx[FX.st + 8] | fx[FX.st + 9] << 8) & 0x7fff) <= 1;
}

const SSE_RULES: Entry[] = [
  {
    id: "RCPPS, RCPSS, RSQRTPS, RSQRTSS: relative error at most 1.5 * 2^-12 each",
    source: "SDM vol 2, RCPPS, RSQRTPS",
    relative: (i) => i.opcode === 0x152 || i.opcode === 0x153 ? 3 / 4096 : 0,
  },
];

const LIST: readonly Entry[] = [...FLAG_RULES, ...X87_RULES, ...SSE_RULES, {
  id: "SHLD, SHRD: destination when the count is above the operand size",
  source: "SDM vol 2, SHLD, SHRD: the destination operand is undefined",
  other: (i, t, field) =>
    [0x1a4, 0x1a5, 0x1ac, 0x1ad].includes(i.opcode) && doubleShiftCount(i, t) > i.size &&
    (i.mod === 3 ? field === registerName(i.rm | ((i.rex & 1) << 3)) : field === "memory"),
}, {
  id: "REP MOVS with 67 in 64-bit mode: this host has cleared RSI's upper half when it faults",
  vendor: "intel",
  source: "SDM vol 2, REP: registers hold what they did before the iteration that faults",
  other: (i, test, field, expected) =>
    i.mode === 64 && (i.opcode === 0xa4 || i.opcode === 0xa5) && i.prefixes.has(0x67) &&
    (i.prefixes.has(0xf3) || i.prefixes.has(0xf2)) && field === registerName(6) &&
    pageFault(expected) && expected.state.gpr[6] === BigInt.asUintN(32, test.state.gpr[6]),
}, {
  id: "LOCK VERW with a memory operand: this host executes it",
  source: "APM vol 3, 1.2.5 (lock prefix): #UD; on family 1Ah it is no such fault",
  vendor: "amd",
  other: (i) => i.opcode === 0x100 && i.reg === 5 && i.mod !== 3 && i.prefixes.has(0xf0),
}];

const pageFault = (expected: Result) => expected.exception?.vector === 14;

function flags(id: string, source: string, rule: (i: Instruction, t: Case) => number): Entry {
  return { id, source, flags: rule };
}

function one(opcodes: number[], mask: number): (i: Instruction) => number {
  return (i) => opcodes.includes(i.opcode) ? mask : 0;
}

function isShift(i: Instruction): boolean {
  return [0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3].includes(i.opcode);
}

/** The count of a shift as the processor masks it. */
function shiftCount(i: Instruction, t: Case): number {
  const mask = i.size === 64 && !i.byte ? 63 : 31;
  if (i.opcode < 0xd0) return i.next & mask;
  return i.opcode < 0xd2 ? 1 : Number(t.state.gpr[1] & 0xffn) & mask;
}

function doubleShiftCount(i: Instruction, t: Case): number {
  const count = i.opcode & 1 ? Number(t.state.gpr[1] & 0xffn) : i.next;
  return count & (i.size === 64 ? 63 : 31);
}

function shift(i: Instruction, t: Case): number {
  if (!isShift(i) || i.reg < 4) return 0;
  const count = shiftCount(i, t), size = i.byte ? 8 : i.size;
  if (count === 0) return 0;
  const carry = i.reg !== 7 && count >= size ? CF : 0;
  return (count === 1 ? AF : AF | OF) | carry;
}

function isTranscendental(i: Instruction): boolean {
  // F2XM1, FYL2X, FPTAN, FPATAN; FYL2XP1; FSINCOS; FSIN, FCOS.
  return i.opcode === 0xd9 && [0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff].includes(i.modrm);
}

/** C0 (bit 8), C2 (10), C3 (14) as far as an instruction leaves them undefined. */
function undefinedConditions(i: Instruction): number {
  if (!isX87(i)) return 0;
  const all = 0x4500;
  const compares = i.opcode === 0xd8 && (i.reg === 2 || i.reg === 3) ||
    i.opcode === 0xdc && (i.reg === 2 || i.reg === 3) ||
    (i.opcode === 0xda || i.opcode === 0xde) && (i.reg === 2 || i.reg === 3) ||
    i.opcode === 0xdd && i.mod === 3 && i.reg >= 4;
  if (compares) return 0;
  if (i.opcode === 0xd9) {
    if (i.modrm === 0xe4 || i.modrm === 0xe5) return 0; // FTST, FXAM
    if (i.modrm === 0xf8 || i.modrm === 0xf5) return 0; // FPREM, FPREM1
    if ([0xf2, 0xfb, 0xfe, 0xff].includes(i.modrm)) return 0x4100; // C2 is defined
    if (i.mod !== 3 && i.reg === 4) return 0; // FLDENV
  }
  if (i.opcode === 0xdd && i.mod !== 3 && i.reg === 4) return 0; // FRSTOR
  if (i.opcode === 0xdb && i.modrm === 0xe3) return 0; // FNINIT
  if (i.opcode === 0xdd && i.mod !== 3 && i.reg === 6) return 0; // FNSAVE
  return all;
}

/** The name under which the comparer reports a general register. */
function registerName(n: number): string {
  return `gpr${n}`;
}

/** Counts a hit and returns true, for the first entry that forgives by `test`. */
export function forgiven(list: Allowance[], test: (a: Allowance) => boolean): boolean {
  const entry = list.find(test);
  if (entry) entry.hits++;
  return entry !== undefined;
}

/** A table of hits. */
export function hitReport(list: readonly Allowance[]): string {
  const rows = list.filter((a) => a.hits).map((a) =>
    `${String(a.hits).padStart(9)}  ${a.id} [${a.source}]`
  );
  return rows.length ? rows.join("\n") : "     none";
}
