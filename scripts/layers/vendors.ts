/**
 * Where a vendor may be named. What differs between Intel's and AMD's processors has rooms of its own;
 * the rest asks by a difference's name (machine/vendors.ts) or through the table of operations
 * (hvm/ops.ts).
 *
 * @module
 */
import { isTest, type Source, type Violation } from "./source.ts";

const VENDOR = /vmx|svm|vmcs|vmcb|"(?:intel|amd)"|\.(?:intel|amd)\b/i;

/** Numbers of both stand in the ABI. */
const ROOMS = [
  "src/abi/x86/",
  "src/machine/vmx/",
  "src/machine/svm/",
  "src/hvm/vmx/",
  "src/hvm/svm/",
];

/** Files outside of those, and why. */
const MAY_NAME: Readonly<Record<string, string>> = {
  "src/hvm/vendors.ts": "which table a host's processor has",
  "src/debug/hypervisor.ts": "here the host is configured",
  "src/debug/options.ts": "here the host is configured",
  "src/debug/compare.ts": "words for configurations of two hosts",
  "src/hvm/exit_kinds.ts": "instructions by their mnemonics",
  "src/machine/machine.ts": "here a machine is configured",
  "src/machine/vendors.ts": "the list of differences",
  "src/machine/virtualization.ts": "what of the two is linked into a processor",
  "src/machine/interpreter/groups.ts": "the instructions of the two are groups of their own",
  "src/machine/isa/encodings.ts": "names of CPUID features",
  "src/machine/isa/encodings_system.ts": "instructions by their mnemonics",
  "src/machine/system/intercepts.ts": "kinds of intercept of their instructions",
  "src/machine/system/control_rules.ts": "which CPUID feature has which bit of CR4 and EFER",
  "src/machine/system/msrs.ts": "which vendor has which MSR",
  "src/machine/system/msr_state.ts": "which vendor has which MSR",
  "src/machine/state.ts": "cells for the registers of both",
  "src/machine/cpu_state.ts": "which values those registers never have",
  "src/machine/cpu.ts": "whose ways a processor has, as its machine is configured",
  "src/machine/cpu_registers.ts": "values of those registers after RESET",
  "src/machine/branches.ts": "AMD's processors record branches",
  "src/machine/counters.ts": "AMD's counters count by EFER.SVME",
  "src/machine/cpuid.ts": "CPUID names its vendor",
  "src/machine/cpuid_models.ts": "CPUID names its vendor",
  "src/machine/topology.ts": "CPUID names its vendor",
  "src/machine/features.ts": "names of CPUID features",
};

/** Lines that name a vendor where that may not be. */
export function checkVendors({ file, code }: Source): Violation[] {
  if (!file.startsWith("src/") || isTest(file) || file in MAY_NAME) return [];
  if (ROOMS.some((room) => file.startsWith(room))) return [];
  return code.split("\n").flatMap((text, i) => {
    const found = text.match(VENDOR);
    const message = `generic code names a vendor: ${
      found?.[0]
    }; ask through hvm/ops or machine/vendors`;
    return found ? [{ file, line: i + 1, message }] : [];
  });
}

/** Files that may name a vendor and do not, or are gone: the list is to say what is so. */
export function checkVendorList(sources: readonly Source[]): Violation[] {
  const naming = new Set(sources.filter(({ code }) => VENDOR.test(code)).map(({ file }) => file));
  return Object.keys(MAY_NAME).filter((file) => !naming.has(file))
    .map((file) => ({ file, line: 1, message: "it names no vendor, and need not be let to" }));
}
