/**
 * Mistakes in how several processors take turns, and in how they are started.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const SMP_TEST = "src/xen/smp_test.ts", STARTED = "vCPUs are started up, interrupted, begun anew";
const TURNS_TEST = "src/xen/turns_test.ts";
const LAW = "a run of several vCPUs repeats, saved and loaded at any place";
const CUT = "a run of several vCPUs is the same however it is cut (intel, bare, on 3)";
const TWO = `${STARTED}, and count together (intel, bare, 2 vCPUs on 2)`;

export const PROCESSOR_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf("src/xen/legs.ts", SMP_TEST, [
    [
      "a leg is not saved",
      "save: () => ({ leg: this.#leg })",
      "save: () => ({ leg: null })",
      `${LAW} (intel, hap, on 2)`,
    ],
    [
      "a processor with nothing to do stays behind",
      "idle.cpu.skipTo(Math.min(now, Math.max(wake(), idle.now)));",
      "",
      `${STARTED}, and count together (intel, hap, 5 vCPUs on 3)`,
    ],
  ]),
  ...mutationsOf("src/xen/host.ts", SMP_TEST, [
    [
      "who is interrupted waits until the other stops by itself",
      "this.legs.end(this.now);",
      "return;",
      `${STARTED}, and count together (intel, hap, 2 vCPUs on 2)`,
    ],
    [
      "a processor begins before it was started up",
      "if (behind) processor.cpu.skipTo(this.now);",
      "",
      TWO,
    ],
  ]),
  ...mutationsOf("src/machine/run.ts", SMP_TEST, [[
    "a slice goes on past its time",
    "Math.min(left, most, due, until - time)",
    "Math.min(left, most, due)",
    CUT,
  ]]),
  ...mutationsOf("src/machine/events.ts", "src/machine/processors_test.ts", [[
    "an NMI ends the wait for a start-up IPI",
    'if (activity === ACTIVITY.waitForSipi) return "halt";',
    "",
    "nothing but a start-up IPI ends the wait for one: no interrupt, no NMI",
  ]]),
  ...mutationsOf("src/machine/events.ts", "src/xen/halt_test.ts", [
    [
      "the processor forgets an NMI behind another",
      "i32[CPU.pendingNmi >> 2] -= 1;",
      "i32[CPU.pendingNmi >> 2] = 0;",
      "of NMIs that come together one is taken and one waits; while one is handled, one waits (amd bare)",
    ],
    [
      "an NMI is taken right behind STI",
      "const NMI_BLOCKED = SHADOW |",
      "const NMI_BLOCKED = INTERRUPTIBILITY.movSs |",
      "STI holds an NMI back for one instruction, as it does interrupts (intel bare)",
    ],
  ]),
  ...mutationsOf("src/machine/cpu_registers.ts", "src/machine/processors_test.ts", [[
    "INIT clears the MSR of system calls",
    "const INIT: readonly CpuCell[] = [",
    'const INIT: readonly CpuCell[] = ["lstar",',
    "INIT keeps x87, XMM, MSRs, the time, and CR0's CD and NW; the rest is as after RESET",
  ]]),
  ...mutationsOf("src/xen/turns.ts", TURNS_TEST, [
    [
      "the log of turns grows without bound",
      "this.#total++) % TURNS_KEPT] = {",
      "this.#total++)] = {",
      "of turns of one instruction the last are kept (intel, bare)",
    ],
    [
      "a host that was put into another state shows turns that did not lead there",
      "    this.#total = this.#kept.length = 0;\n",
      "",
      "a loaded state has no turns from before, and looking is no state (amd, hap)",
    ],
  ]),
  ...mutationsOf("src/xen/scheduler.ts", TURNS_TEST, [
    [
      "of one guest's vCPUs the one with most credit runs, however long it already has",
      "unit.domain === best.domain && unit.share.turn",
      "unit === best && unit.share.turn",
      "turns follow one another, each as long as the seed picks (intel, hap)",
    ],
  ]),
];
