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
const OUTSTANDING = "src/debug/events/outstanding_test.ts";

export const STATE_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf("src/xen/host.ts", TEST, [
    ["a block not registered: the world", "    this.world.register(blocks);\n", "", LAW],
  ]),
  ...mutationsOf("src/xen/domain.ts", TEST, [
    ["a block not registered: the chips", "    this.platform.register(blocks);\n", "", LAW],
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
];
