/** The kinds of exits that the four verbs take; `any` is each of them. */
export const EXIT_KINDS: readonly string[] =
  ("any cpuid msr io mmio cr dr exception external-interrupt interrupt-window nmi nmi-window hlt pause " +
    "monitor mwait hypercall virtualization-instruction invlpg invpcid rdtsc rdpmc rdrand rdseed " +
    "descriptor-table task-switch nested-page-fault shadow-write triple-fault tpr wbinvd invd xsetbv " +
    "debug preemption-timer coprocessor-error entry-failure software-interrupt iret pushf popf icebp rsm smi init")
    .split(" ");
