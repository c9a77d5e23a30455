// kvm-unit-tests' own tests of SVM, on the bare machine: a hypervisor of instructions, guests under it.
import { assertEquals } from "@std/assert";
import type { Host } from "../../src/xen/host.ts";
import { V } from "../../src/machine/state.ts";
import type { BuiltDomain } from "../../src/builder/domain.ts";
import { run, suiteImages } from "./run.ts";
import { TestDev } from "./testdev.ts";

const images = suiteImages();

/**
 * Not run: latency (hundreds of millions of instructions and no verdict), TSC scaling (as long), the
 * PAUSE filter (an image of its own run), and instructions that CPUID would have to take away.
 */
const LEFT_OUT = [
  "latency_run_exit",
  "latency_run_exit_clean",
  "latency_svm_insn",
  "svm_tsc_scale_test",
  "pause_filter_test",
  "svm_unsupported_instruction_intercept_test",
];

/**
 * Where the suite and this machine differ: it wants an MSR permission map that ends exactly with
 * physical memory refused (the manual refuses what reaches beyond it), and there is no SMI here.
 */
const KNOWN = [
  "FAIL: Test MSRPM address: fffffe000",
  "FAIL: Test MSRPM address: fffffe001",
  "FAIL: must not reach here",
  "FAIL: Wanted VM-Exit reason 0x62, got 0x81",
];

interface SvmTest {
  readonly image: string;
  readonly cmdline?: string;
  readonly pass: number;
  readonly fail: readonly string[];
  readonly limit: number;
}

/** As many as its unittests.cfg gives it. */
const PROCESSORS = 2;

const TESTS: readonly SvmTest[] = [
  {
    image: "svm",
    cmdline: LEFT_OUT.map((name) => `-${name}`).join(" "),
    pass: 369,
    fail: KNOWN,
    limit: 2000e6,
  },
  { image: "svm", cmdline: "pause_filter_test", pass: 4, fail: [], limit: 400e6 },
  { image: "svm_npt", pass: 135, fail: [], limit: 400e6 },
];

/** The extended performance counters of later families, which the suite puts to zero. */
function addCounters({ machine }: Host): void {
  for (const cpu of machine.cpus) {
    const others = cpu.hooks.msr;
    cpu.hooks.msr = (number, write) => {
      const counter = number - 0xc001_0200;
      if (!(counter >= 0 && counter < 12)) return others?.(number, write) ?? false;
      if (!write) cpu.u64[V.value >> 3] = 0n;
      return true;
    };
  }
}

if (images !== undefined) {
  for (const test of TESTS) {
    Deno.test(`kvm-unit-tests x86_64/${test.image} ${test.cmdline ?? ""} on the bare machine`, async () => {
      const { text, end, lastFault } = await run({
        image: `${images}/x86_64/${test.image}.flat`,
        cmdline: test.cmdline,
        cpu: "amd",
        features: { svm: true },
        vcpus: PROCESSORS,
        memory: 256 << 20,
        limit: test.limit,
        prepare: (built: BuiltDomain, host) => {
          built.board.bus.attach(new TestDev(built.board));
          addCounters(host);
        },
      });
      const lines = text.split(/\r?\n/), told = `${lines.slice(-8).join("\n")}\n${lastFault}`;
      assertEquals(end, `exit (status ${test.fail.length ? 3 : 1})`, told);
      assertEquals(lines.filter((line) => line.startsWith("FAIL")), test.fail);
      assertEquals(lines.filter((line) => line.startsWith("PASS")).length, test.pass);
    });
  }
}
