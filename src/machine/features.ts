/** Which CPUID features the machine can honour: those all of whose instructions have a meaning. */
import { featureBits } from "../abi/x86/cpuid.ts";
import { Cpuid, type CpuidEdit, type CpuidLimits } from "./cpuid.ts";
import { type CpuidModel, MODELS, NEEDS } from "./cpuid_models.ts";
import { type Encoding, encodings } from "./isa/encodings.ts";
import { groupOf } from "./interpreter/groups.ts";
import type { CpuModel } from "./vendors.ts";

/** Names in the encoding table that CPUID spells differently. */
const CPUID_NAME: Record<string, string> = { x87: "fpu", sse41: "sse4_1", sse42: "sse4_2" };

/** Features that can be shown though no model of the machine's own has them. */
const HARMLESS = ["hypervisor", "ht", "ss", "cmp_legacy", "topoext"];
/**
 * Guests are not offered the virtualization extensions: nesting is not there yet. The processor's own
 * system may have SVM if it is asked for: a hypervisor of machine code runs its guests then.
 */
const VIRTUALIZATION = ["vmx", "svm"];
const BARE = "svm";

/** The feature by which CPUID shows that an instruction is there; undefined for one that always is. */
export function featureOf({ attributes: { feature } }: Encoding): string | undefined {
  const name = CPUID_NAME[feature] ?? feature;
  return name in featureBits ? name : undefined;
}

/** Features of the encoding table whose instructions the machine does not all execute. */
export function missingFeatures(): ReadonlySet<string> {
  const missing = new Set<string>();
  for (const e of encodings) {
    const name = featureOf(e);
    if (name !== undefined && groupOf(e.key) === undefined) missing.add(name);
  }
  return missing;
}

/** By number of the encoding: 1 if it belongs to a feature that `cpuid` does not show. */
export function absentEncodings(cpuid: Cpuid): Uint8Array {
  return Uint8Array.from(encodings, (e) => {
    const name = featureOf(e);
    return name !== undefined && !cpuid.has(name) ? 1 : 0;
  });
}

/** Large pages, which are no instructions and yet can be used. */
const PAGES = ["pdpe1gb", "pse36"];

/** Features of a vendor's processor that can be used, by instructions or pages, and that `cpuid` does not show. */
export function notShown(vendor: CpuModel, cpuid: Cpuid): string[] {
  const used = new Set(encodings.map(featureOf));
  const own = new Cpuid(vendor, {}, guestLimits(vendor));
  return own.features.filter((name) =>
    (used.has(name) || PAGES.includes(name)) && !cpuid.has(name)
  );
}

let missing: ReadonlySet<string> | undefined;
/** Physical address bits of the machine. */
const PHYSICAL_BITS = 36;

/** What a processor of a vendor can honour in the CPUID of a guest, or of a system on it alone. */
export function guestLimits(vendor: CpuModel, bare = false): CpuidLimits {
  const able = new Set([...MODELS[vendor].features.split(" "), ...HARMLESS]);
  const refuse = (name: string): string | undefined => {
    const extension = [name, NEEDS[name]].find((x) => VIRTUALIZATION.includes(x));
    if (extension !== undefined && !(bare && extension === BARE)) {
      return "virtualization inside a guest is not available yet";
    }
    if (name === "monitor") return "MWAIT would keep an idle guest running";
    if (!able.has(name)) return `a simulated ${vendor} processor does not have it`;
    missing ??= missingFeatures();
    return missing.has(name) ? "the machine does not execute its instructions yet" : undefined;
  };
  return { refuse, physicalBits: PHYSICAL_BITS };
}

/**
 * The CPUID of a guest on a processor of a vendor: a model, less what the processor cannot do, and
 * changed as asked.
 *
 * @param bare it is the system's on the processor itself; SVM is shown only if asked for
 * @param processors how many the guest has: 1 to 16
 * @throws TypeError for a model, a feature or a leaf that does not exist or cannot be so, and for several
 *   processors without an APIC
 */
export function guestCpuid(
  vendor: CpuModel,
  { model = vendor, ...edit }: CpuidEdit & { readonly model?: CpuidModel } = {},
  bare = false,
  processors = 1,
): Cpuid {
  const cpuid = new Cpuid(model, {}, guestLimits(vendor, bare), processors);
  const off = VIRTUALIZATION.filter((name) => cpuid.has(name) && !edit.features?.[name]);
  cpuid.edit({ features: Object.fromEntries(off.map((name) => [name, false])) });
  cpuid.edit(edit);
  if (processors > 1 && !cpuid.has("apic")) {
    throw new TypeError(
      `cpuid: apic is off, and without it only the first of ${processors} processors can be started`,
    );
  }
  return cpuid;
}
