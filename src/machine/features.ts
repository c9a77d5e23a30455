/** Which CPUID features the machine can honour: those all of whose instructions have a meaning. */
import { featureBits } from "../abi/x86/cpuid.ts";
import { encodings } from "./isa/encodings.ts";
import { groupOf } from "./isa/semantics/index.ts";

/** Names in the encoding table that CPUID spells differently. */
const CPUID_NAME: Record<string, string> = { x87: "fpu", sse41: "sse4_1", sse42: "sse4_2" };
/** Extensions that make no sense without the one before them. */
const NEEDS: Record<string, string> = {
  sse: "fxsr",
  sse2: "sse",
  sse3: "sse2",
  ssse3: "sse3",
  sse4_1: "ssse3",
  sse4_2: "sse4_1",
};

/** Guests are not offered the virtualization extensions: nesting is not there yet. */
export const NO_VIRTUALIZATION = { vmx: false, svm: false } as const;

/** Features to switch off, for `new Cpuid(model, ...)`: the machine does not execute them yet. */
export function missingFeatures(): Record<string, boolean> {
  const missing: Record<string, boolean> = {};
  for (const e of encodings) {
    const name = CPUID_NAME[e.attributes.feature] ?? e.attributes.feature;
    if (name in featureBits && groupOf(e.key) === undefined) missing[name] = false;
  }
  for (const [name, needed] of Object.entries(NEEDS)) {
    if (needed in missing) missing[name] = false;
  }
  return missing;
}
