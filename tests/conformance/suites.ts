import type { Interleave } from "../../src/xen/scheduler.ts";

/** What the suites' images do on a correct machine, as facts: names, marks, counts. */

/** One image of kvm-unit-tests: exits with status 1, no FAIL line, and this many PASS lines. */
export interface UnitTest {
  /** File in the images' folder, without `.flat`. */
  readonly image: string;
  readonly pass: number;
  /** A line that must be there, for an image that prints no PASS. */
  readonly line?: string;
  /** Model of the processor it needs, which a bare machine then has; the host's if not given. */
  readonly cpuid?: "intel" | "amd";
  /** Only this vendor's processors have what it tests. */
  readonly only?: "intel" | "amd";
  /** Needs a BIOS's timer interrupt to leave HLT. */
  readonly timer?: boolean;
  /** Processors, its own or virtual ones; 1 if not given. */
  readonly vcpus?: number;
  /** How long they run in turn, where it hands something to and fro for long. */
  readonly interleave?: Interleave;
  /** Instructions after which it is given up; {@linkcode UNIT_TEST_LIMIT} if not given. */
  readonly limit?: number;
  /** It is told that QEMU's device for tests is not there: of apic that leaves out KVM's own hypercall. */
  readonly plain?: boolean;
}

/** apic sends NMIs to and fro 100,000 times. */
const APIC = {
  image: "x86_64/apic",
  vcpus: 2,
  interleave: { min: 200, max: 1000 },
  limit: 2000e6,
  plain: true,
} as const;

/**
 * The images that this processor has the features for. `memory` skips PCOMMIT, and `xsave` the
 * registers of AVX: without them QEMU's processor passes as many.
 */
export const UNIT_TESTS: readonly UnitTest[] = [
  { image: "i386/realmode", pass: 127, timer: true },
  { image: "i386/taskswitch", pass: 0, line: "post fault" },
  { image: "i386/taskswitch2", pass: 13 },
  { image: "i386/setjmp", pass: 10 },
  { image: "i386/smap", pass: 18 },
  { image: "i386/umip", pass: 21 },
  { image: "i386/cmpxchg8b", pass: 1 },
  { image: "i386/eventinj", pass: 15 },
  { image: "i386/tsc", pass: 3 },
  { image: "i386/tsc_adjust", pass: 6 },
  { image: "i386/msr", pass: 1808 },
  { image: "x86_64/ioapic", pass: 19 },
  { image: "x86_64/ioapic", pass: 30, vcpus: 4 },
  { ...APIC, pass: 55, only: "intel" },
  // Without a deadline of the time-stamp counter.
  { ...APIC, pass: 53, only: "amd" },
  { ...APIC, interleave: { min: 20, max: 200 }, pass: 53, only: "amd" },
  { image: "i386/smptest", pass: 1, vcpus: 2 },
  { image: "i386/smptest", pass: 1, vcpus: 5 },
  { image: "x86_64/smptest", pass: 1, vcpus: 2 },
  { image: "x86_64/smptest", pass: 1, vcpus: 3 },
  { image: "x86_64/smptest", pass: 1, vcpus: 8 },
  { image: "x86_64/tsc_adjust", pass: 6, vcpus: 2 },
  { image: "x86_64/pcid", pass: 2 },
  { image: "x86_64/realmode", pass: 127, timer: true },
  { image: "x86_64/setjmp", pass: 10 },
  { image: "x86_64/smap", pass: 18 },
  { image: "x86_64/umip", pass: 21 },
  { image: "x86_64/eventinj", pass: 13 },
  { image: "x86_64/tsc", pass: 3 },
  { image: "x86_64/idt_test", pass: 4 },
  { image: "x86_64/memory", pass: 6 },
  { image: "x86_64/xsave", pass: 299 },
  // It wants SYSCALL in compatibility mode, which only AMD's processors have.
  { image: "x86_64/syscall", pass: 2, cpuid: "amd" },
  { image: "x86_64/msr", pass: 1808 },
  { image: "x86_64/debug", pass: 25 },
  // It jumps by a pointer m16:64, which only Intel's processors have.
  { image: "x86_64/emulator", pass: 150, only: "intel" },
  { image: "x86_64/rmap_chain", pass: 1 },
  { image: "x86_64/tsc_adjust", pass: 6 },
  { image: "x86_64/tscdeadline_latency", pass: 1, only: "intel" },
];

/**
 * Of what its unittests.cfg runs on several processors there are not here: what is KVM's, Hyper-V's or an
 * IOMMU's (kvmclock_test, hyperv_*, intel_iommu), what tests CET or VMX inside a guest (cet, vmx), which
 * CPUID here does not have, and vmexit, which measures and has no verdict. svm is in svm_test.ts. apic
 * without x2APIC, to all logical destinations one after the other, takes ten thousand milliseconds.
 */

/** Instructions after which a unit test is given up; the longest takes 12 million. */
export const UNIT_TEST_LIMIT = 100e6;

/** test386: the codes of its POST port in order (POST 7 is for another CPU family), and its files. */
export const TEST386 = {
  image: "test386.bin",
  reference: "test386-EE-reference.txt",
  last: 0xff,
  /** Instructions; it takes 80 million. */
  limit: 200e6,
} as const;
