/**
 * Kinds of VM exit that an instruction may cause by itself: what the table of instructions, semantics
 * and the virtualization extensions call them, and the numbers that generated code passes.
 */

const KINDS = [
  "cr",
  "dr",
  "io",
  "msr",
  "cpuid",
  "hlt",
  "invlpg",
  "rdtsc",
  "rdpmc",
  "pause",
  "mwait",
  "monitor",
  "descriptor-table",
  "wbinvd",
  "invd",
  "xsetbv",
  "rsm",
  "vmx",
  "svm",
  "hypercall",
  "task-switch",
  "iret",
  "pushf",
  "popf",
  "int",
  "icebp",
  "rdrand",
  "rdseed",
  "invpcid",
  "xsaves",
  "coprocessor-error",
  "absent",
] as const;

export type InterceptKind = typeof KINDS[number];

/** Numbers of the kinds. */
export const INTERCEPT = Object.fromEntries(KINDS.map((kind, n) => [kind, n])) as Readonly<
  Record<InterceptKind, number>
>;

/** Instructions that a guest's host can take away, by the qualification of "absent". */
export const ABSENT = { rdtscp: 0, invpcid: 1, xsaves: 2 } as const;
