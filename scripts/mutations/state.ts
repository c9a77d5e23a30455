/**
 * Mutations of what is saved: a block that nobody registers, a field that is not in its record, a check
 * that is not made.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const TEST = "src/debug/state_test.ts";
const LAW = "save, run on, load, run on = run on, at every kind of stop (intel, hap)";
const SELDOM = "a field with a value that it seldom has is taken, and saved again (intel, hap)";
const ANSWER = "an answer at a stop counts, and takes time, as one in an action (intel, hap)";
const OUTSTANDING = "src/debug/events/outstanding_test.ts";

export const STATE_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf("src/xen/host.ts", TEST, [
    ["a block not registered: the world", "    this.world.register(blocks);\n", "", LAW],
  ]),
  ...mutationsOf("src/xen/domain.ts", TEST, [
    ["a block not registered: the chips", "    this.platform?.register(blocks);\n", "", LAW],
  ]),
  ...mutationsOf("src/xen/vcpu.ts", TEST, [
    ["a field not saved: a vCPU that waits", "halted: this.#halted,", "halted: false,", SELDOM],
  ]),
  ...mutationsOf("src/xen/hvm.ts", TEST, [
    [
      "a field not saved: MSRs that the hypervisor remembers",
      "        msrs: [...this.msrs].sort((a, b) => a[0] - b[0]),",
      "        msrs: [],",
      SELDOM,
    ],
    [
      "a field not saved: the exit a guest stands at",
      "pending: this.pending ? exitRecord(this.pending) : null,",
      "pending: null,",
      LAW,
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", OUTSTANDING, [
    [
      "a block not registered: I/O requests",
      "    this.ioreq.register(blocks);\n",
      "",
      "what devices have answered of an instruction is asked once, a load between or not (intel, hap)",
    ],
  ]),
  ...mutationsOf("src/xen/domain.ts", "src/builder/a20_test.ts", [
    [
      "a block not registered: the P2M",
      "    this.memory.register?.(blocks);\n",
      "",
      "a closed A20 gate is saved and loaded, intel hvm shadow",
    ],
  ]),
  ...mutationsOf("src/machine/cpu_state.ts", TEST, [
    [
      "a field not saved: debug exceptions that wait",
      "!/^flag[A-Z]|[pP]ad2?$/.test(name)",
      "!/^flag[A-Z]|[pP]ad2?$|^pendingDebug$/.test(name)",
      SELDOM.replace("hap", "bare"),
    ],
  ]),
  ...mutationsOf("src/machine/state_block.ts", "src/machine/state_block_test.ts", [
    [
      "a block's version is not looked at",
      "if (version !== block.version) {",
      "if (version === 0) {",
      "StateRegistry checks all before it changes anything, and says what was expected",
    ],
    [
      "a block is loaded before the others are checked",
      "      return () => load(record);",
      "      load(record);\n      return () => {};",
      "StateRegistry checks all before it changes anything, and says what was expected",
    ],
  ]),
  ...mutationsOf("src/debug/events/waiters.ts", OUTSTANDING, [
    [
      "a signal outlives the wait",
      '        abort?.signal.removeEventListener("abort", aborted);\n',
      "",
      "who waits while the host is put into a saved state is told why it is over (intel, hap)",
    ],
  ]),
  ...mutationsOf("src/xen/processor.ts", "src/debug/debugger_test.ts", [
    [
      "an instruction that an answer at a stop completes is nobody's",
      "    vcpu.retire(cpu.count - count);\n",
      "",
      ANSWER,
    ],
    [
      "an answer in another's turn counts as that one's",
      "    this.#ranFrom += cpu.count - count;\n",
      "",
      ANSWER,
    ],
  ]),
  ...mutationsOf("src/xen/domain.ts", "src/debug/debugger_test.ts", [
    [
      "an answer at a stop takes no time of its domain",
      "    this.#setClock(true);\n    processor.inPlaceOf",
      "    processor.inPlaceOf",
      ANSWER,
    ],
  ]),
  ...mutationsOf("src/xen/domain.ts", TEST, [
    [
      "a state in which a domain runs is taken",
      "        if (!blocked) return;\n",
      "        if (blocked !== undefined) return;\n",
      "a state in which a domain that is not paused has something to do is refused (intel, hap)",
    ],
  ]),
  ...mutationsOf("src/machine/vmx/exit.ts", TEST, [
    [
      "PDPTEs of another mode are saved at a VM exit",
      "f.if(secondaryOf(vmcs).and(SECONDARY.ept).nez().and(pae), () => {",
      "f.if(pae.or(1), () => {",
      "what the processor had while the guest was in another mode is not in its states (intel, shadow)",
    ],
  ]),
  ...mutationsOf("src/hvm/exit_kinds.ts", TEST, [
    [
      "a row's intercept is wrong: INVPCID has one of its own",
      "    intercept: (wanted: Selective): void => void (wanted.invlpg = true),\n",
      "",
      LAW,
    ],
  ]),
];
