import type { InterceptKind } from "../isa/encodings.ts";

/** Numbers of the intercept kinds, as the Wasm functions pass them. */
export const INTERCEPT = Object.fromEntries(
  ([
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
  ] as const satisfies readonly InterceptKind[]).map((kind, n) => [kind, n]),
) as Record<InterceptKind, number>;

/** Instructions that a guest's host can take away, by the qualification of "absent". */
export const ABSENT = { rdtscp: 0, invpcid: 1, xsaves: 2 } as const;
