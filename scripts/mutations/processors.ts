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

const CROWD_TEST = "src/debug/crowd_test.ts", ON_TWO = "(intel, hap, 4 vCPUs on 2)";
const FOUND = "what one vCPU changes all of them find changed, and nothing sent is lost";
const PAUSED = "a run of several vCPUs is the same however often it is paused";
const STOPPED =
  "a run of several vCPUs is the same with stops at exits, and pauses within them (intel, hap)";
const OTHERS = "processors see what others write: tables, code, data (hot handlers true)";

export const PROCESSOR_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf("src/xen/host.ts", CROWD_TEST, [
    [
      "a turn that is ended from within is not paid for",
      "this.scheduler.burn(vcpu, this.now - started, turn);",
      "this.scheduler.burn(vcpu, this.now - started, processor.turn);",
      `${PAUSED} (intel, hap, 2 vCPUs on 1)`,
    ],
    [
      "who is woken on another processor waits for the turn there",
      "    vcpu.processor.turn = null;\n",
      "    if (vcpu.processor === active) active.turn = null;\n",
      `${FOUND} ${ON_TWO}`,
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", CROWD_TEST, [
    [
      "an NMI goes to another vCPU",
      "return this.port.signals.nmi > 0;",
      "return this.platform.ports[1].signals.nmi > 0;",
      `${FOUND} ${ON_TWO}`,
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", CROWD_TEST, [[
    "whoever looks at a vCPU has it look what is due",
    "    this.cpuid.showMisaligned(this.on.cpu.i32);\n  }\n  protected",
    "    this.cpuid.showMisaligned(this.on.cpu.i32);\n    this.changed = true;\n  }\n  protected",
    "a run of many vCPUs is the same whoever looks at them, and wherever the host cuts it (amd)",
  ]]),
  ...mutationsOf("src/xen/domain.ts", CROWD_TEST, [[
    "a pause within an instruction takes its time away",
    " || this.vcpus.some(({ running }) => running)",
    "",
    STOPPED,
  ]]),
  ...mutationsOf("src/machine/apic/messages.ts", CROWD_TEST, [[
    "an interrupt to several comes to one alone",
    "accepted = local.receive(message) || accepted;",
    "accepted = accepted || local.receive(message);",
    `${FOUND} ${ON_TWO}`,
  ]]),
  ...mutationsOf("src/machine/apic/local.ts", CROWD_TEST, [
    ["INIT is lost", "{ ...noSignals(), init: true }", "noSignals()", `${FOUND} ${ON_TWO}`],
    [
      "a start-up is lost",
      "        this.state.signals.startup = vector;\n",
      "",
      `${FOUND} ${ON_TWO}`,
    ],
  ]),
  ...mutationsOf("src/debug/testing/crowd.ts", CROWD_TEST, [[
    "a lock is read, and then written",
    "  xchg [${CROWD.lock}], eax\n",
    "  mov edx, [${CROWD.lock}]\n  mov [${CROWD.lock}], eax\n  mov eax, edx\n",
    `${FOUND} ${ON_TWO}`,
  ]]),
  ...mutationsOf("src/machine/machine.ts", "src/machine/processors_test.ts", [
    [
      "what others have of a table that was changed stays",
      "if (cpu !== by && flags & cpu.marks.table) cpu.flushTlb();",
      "if (cpu === by && flags & cpu.marks.table) cpu.flushTlb();",
      OTHERS,
    ],
    [
      "code that was changed stays at the other processors",
      "    for (const cpu of this.cpus) cpu.predecoder.invalidate(frame);",
      "    this.cpu.predecoder.invalidate(frame);",
      OTHERS,
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", "src/debug/several_test.ts", [[
    "one vCPU's request is another's",
    "this.ioreq = new IoreqSlot(",
    "this.ioreq = (domain.vcpus[0].engine as HvmEngine | undefined)?.ioreq ?? new IoreqSlot(",
    "late answers to two vCPUs at a time are each one's own (intel, hap)",
  ]]),
  ...mutationsOf("src/xen/scheduler.ts", SMP_TEST, [
    [
      "what lengths are drawn from is not saved",
      "        random: this.#random,",
      "        random: 1,",
      `${LAW} (intel, hap, on 2)`,
    ],
  ]),
  ...mutationsOf("src/xen/legs.ts", "src/debug/sharing_test.ts", [[
    "who was alone runs on when others have come",
    "Math.min(LONGEST_TURN, Math.max(1, wake() - first.now))",
    "Math.max(1, wake() - first.now)",
    "who comes to a processor while another's runs alone has a turn there (intel)",
  ]]),
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
  ...mutationsOf("src/xen/scheduler.ts", "src/debug/several_test.ts", [
    [
      "lengths of turns are not saved",
      "        this.#interleave = saved.interleave;\n",
      "",
      "lengths of turns are set at a stop, with a seed, and are part of a saved state",
    ],
  ]),
];
