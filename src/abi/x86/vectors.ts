/**
 * Exception vectors (SDM vol. 3, table 6-1), and types of events.
 * @module
 */

/** An exception: its mnemonic, what it is, and whether it pushes an error code. */
export interface ExceptionVector {
  readonly vector: number;
  readonly name: string;
  readonly text: string;
  readonly errorCode: boolean;
  readonly kind: "fault" | "trap" | "abort" | "interrupt";
}

const rows: [number, string, string, boolean, ExceptionVector["kind"]][] = [
  [0, "#DE", "divide error", false, "fault"],
  [1, "#DB", "debug", false, "trap"],
  [2, "NMI", "non-maskable interrupt", false, "interrupt"],
  [3, "#BP", "breakpoint", false, "trap"],
  [4, "#OF", "overflow", false, "trap"],
  [5, "#BR", "BOUND range exceeded", false, "fault"],
  [6, "#UD", "invalid opcode", false, "fault"],
  [7, "#NM", "device not available", false, "fault"],
  [8, "#DF", "double fault", true, "abort"],
  [9, "coprocessor", "coprocessor segment overrun", false, "fault"],
  [10, "#TS", "invalid TSS", true, "fault"],
  [11, "#NP", "segment not present", true, "fault"],
  [12, "#SS", "stack-segment fault", true, "fault"],
  [13, "#GP", "general protection", true, "fault"],
  [14, "#PF", "page fault", true, "fault"],
  [16, "#MF", "x87 floating-point error", false, "fault"],
  [17, "#AC", "alignment check", true, "fault"],
  [18, "#MC", "machine check", false, "abort"],
  [19, "#XM", "SIMD floating-point exception", false, "fault"],
  [20, "#VE", "virtualization exception", false, "fault"],
  [21, "#CP", "control protection", true, "fault"],
];

/** All defined vectors below 32, in order. */
export const exceptionVectors: readonly ExceptionVector[] = rows.map((
  [vector, name, text, errorCode, kind],
) => ({ vector, name, text, errorCode, kind }));

const byVector = new Map(exceptionVectors.map((x) => [x.vector, x]));

/** Name of a vector: "#PF", or "vector 0x30" for one without a name of its own. */
export function vectorName(vector: number): string {
  return byVector.get(vector)?.name ?? `vector 0x${vector.toString(16)}`;
}

/** Numbers of the exceptions by mnemonic without the sign. */
export const VECTOR = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
  VE: 20,
  CP: 21,
} as const;

/** Types of events (SDM vol. 3, table 24-14). */
export const EVENT_TYPE = {
  externalInterrupt: 0,
  nmi: 2,
  hardwareException: 3,
  softwareInterrupt: 4,
  privilegedSoftwareException: 5,
  softwareException: 6,
  other: 7,
} as const;
