/** CPUID (SDM 2): the registers come from the host's table (cpuid.ts of the machine). */
import type { Semantics } from "./meaning.ts";

export const cpuidSemantics: Record<string, Semantics> = {
  cpuid: (m) => {
    m.intercept("cpuid");
    m.uses({ in: ["rax", "rcx"], out: ["rax", "rbx", "rcx", "rdx"] });
    m.f.call("cpuid");
    m.commit();
  },
};
