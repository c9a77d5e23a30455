/** The group of system instructions; their functions in module S come from system/build.ts. */
import { controlSemantics } from "./control.ts";
import { cpuidSemantics } from "./cpuid.ts";
import { farSemantics } from "./far.ts";
import { ioSemantics } from "./io.ts";
import type { Semantics } from "./meaning.ts";
import { msrSemantics } from "./msr.ts";
import { segmentSemantics } from "./segment.ts";
import { callSemantics } from "./system_calls.ts";
import { tableSemantics } from "./system.ts";

/** Meanings of all system instructions, by key of the encoding table. */
export const systemGroup: { readonly semantics: Readonly<Record<string, Semantics>> } = {
  semantics: {
    ...controlSemantics,
    ...cpuidSemantics,
    ...farSemantics,
    ...ioSemantics,
    ...msrSemantics,
    ...segmentSemantics,
    ...callSemantics,
    ...tableSemantics,
  },
};
