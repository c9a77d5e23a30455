/**
 * What a guest's CPUID does not show, and what becomes of it. Some of it follows bits of CR4, EFER or
 * XCR0 that then cannot be set; some has a control of the hardware's, or leaves and is answered with
 * #UD; MSRs do not exist (xen/msrs.ts). The rest executes: hardware has no control for it, and a
 * guest that does not go by CPUID finds it.
 */
import { exitRows } from "../hvm/exit_kinds.ts";
import { notShown } from "../machine/features.ts";
import type { HvmEngine } from "./hvm.ts";

/** Instructions that are undefined unless a bit is set that cannot be: OSXSAVE, FSGSBASE, SCE, OSFXSR. */
const BY_BIT: Readonly<Record<string, string>> = {
  fsgsbase: "fsgsbase",
  syscall: "syscall",
  xsave: "xsave",
  xsaveopt: "xsave",
  xsavec: "xsave",
  xgetbv1: "xsave",
  xsaves: "xsave",
  sse: "fxsr",
  sse2: "fxsr",
  sse3: "fxsr",
  ssse3: "fxsr",
  sse4_1: "fxsr",
};
const PAGES = ["pdpe1gb", "pse36"];

/** The feature is gone if CPUID does not show it. */
function hides({ cpuid, ops, shadow }: HvmEngine, feature: string): boolean {
  const needed = BY_BIT[feature];
  if (needed && !cpuid.has(needed)) return true;
  // Under shadow paging the hypervisor's own walk knows no such pages.
  if (PAGES.includes(feature)) return shadow !== undefined;
  return ops.takesAway.includes(feature) ||
    ops.exitKinds.some((kind) => exitRows[kind].feature === feature);
}

/** Features that CPUID does not show the guest and that are there all the same, by name. */
export function executesUnseen(e: HvmEngine): string[] {
  const all = notShown(e.on.cpu.model, e.cpuid);
  return all.filter((feature) => !hides(e, feature)).sort();
}
