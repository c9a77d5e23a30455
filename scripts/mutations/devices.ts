/**
 * Mistakes in interrupt controllers and device models.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const APIC = "src/machine/apic", DIGEST_TEST = "src/debug/digest_test.ts";

export const DEVICE_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf(`${APIC}/io.ts`, `${APIC}/io_test.ts`, [
    [
      "IO-APIC: the reverse map gives pins for IRQs",
      "found = this.irqOf(pin);",
      "found = pin;",
      "IoApic.vectorIrq() reads the table backwards, for each processor",
    ],
    [
      "IO-APIC: one reverse map for all processors",
      "if (!addresses(messageOf(...this.#written(pin))!, local)) continue;",
      "",
      "IoApic.vectorIrq() reads the table backwards, for each processor",
    ],
    [
      "IO-APIC: a level that stays is not sent again after EOI",
      "this.drive(pin, false);\n    }\n  }\n\n  readRegister",
      "}\n  }\n\n  readRegister",
      "IoApic repeats a level until it falls, once per EOI",
    ],
  ]),
  ...mutationsOf(`${APIC}/messages.ts`, `${APIC}/io_test.ts`, [
    [
      "IO-APIC: an NMI as a level",
      "return (data & LEVEL) !== 0 && (data >> 8 & 7) <= deliveryMode.lowest;",
      "return (data & LEVEL) !== 0;",
      "IoApic takes NMI, SMI, INIT and ExtINT as edges, whatever the entry says",
    ],
  ]),
  ...mutationsOf(`${APIC}/messages.ts`, `${APIC}/messages_test.ts`, [
    [
      "APIC bus: an IPI is lost for the last processor",
      "for (const local of this.targets(message, addressed)) {",
      "for (const local of this.targets(message, addressed).slice(0, 15)) {",
      "xAPIC: physical, flat and cluster destinations among sixteen",
    ],
    [
      "APIC bus: lowest priority is the last of equals",
      "b.processorPriority < a.processorPriority ? b : a",
      "b.processorPriority <= a.processorPriority ? b : a",
      "lowest priority: one, of the lowest PPR, the first on the bus of equals (x2apic)",
    ],
    [
      "APIC bus: a local APIC that is off hears it",
      "this.locals.filter((local) => local.enabled && addressed(local))",
      "this.locals.filter((local) => addressed(local))",
      "shorthands: self, all, and all but self (xapic)",
    ],
    [
      "x2APIC: FFh is every processor",
      "(!wide && destination === BROADCAST)",
      "destination === BROADCAST",
      "x2APIC: 32-bit destinations, physical and by cluster of the id",
    ],
    [
      "a message: the redirection hint is not seen",
      "given === deliveryMode.fixed && address & REDIRECT ? deliveryMode.lowest : given",
      "given",
      "messageOf() takes address and data apart",
    ],
  ]),
  ...mutationsOf(`${APIC}/local.ts`, `${APIC}/messages_test.ts`, [
    [
      "local APIC: a start-up from before INIT stays",
      "{ ...noSignals(), init: true }",
      "{ ...this.state.signals, init: true }",
      "INIT, start-up, NMI and SMI wait for the processor they are for (xapic)",
    ],
    [
      "local APIC: INIT's end begins another",
      "if (mode === deliveryMode.init && (icrLow & 0xc000) === 0x8000) return;",
      "",
      "INIT, start-up, NMI and SMI wait for the processor they are for (x2apic)",
    ],
  ]),
  ...mutationsOf("src/devices/bus.ts", "src/builder/board_test.ts", [
    [
      "a local APIC is found by other processors",
      "device.processor === undefined || processor === undefined || device.processor === processor;",
      "true;",
      "Board: each processor finds its own local APIC at FEE00000h",
    ],
  ]),
  ...mutationsOf("src/builder/port.ts", "src/builder/board_test.ts", [
    [
      "the 8259 comes straight to every processor whose APIC is off",
      "const straight = state.bootstrap && !state.enabled;",
      "const straight = !state.enabled;",
      "Board: the 8259 interrupts the bootstrap processor alone, NMI's line is LINT1 of all",
    ],
  ]),
  ...mutationsOf("src/machine/cpuid.ts", "src/machine/topology_test.ts", [
    [
      "CPUID: all processors have the first one's APIC id",
      "const apicId = state?.apicId ?? 0;",
      "const apicId = 0;",
      "each processor's CPUID instruction gives its own APIC id",
    ],
  ]),
  ...mutationsOf(`${APIC}/local.ts`, `${APIC}/local_test.ts`, [
    [
      "local APIC: EOI lost",
      "setBit(this.state.isr, vector, false);",
      "",
      "LocalApic delivers by priority: class above PPR only",
    ],
    [
      "local APIC: the priority's class not compared",
      "return vector >> 4 > this.processorPriority >> 4 ? vector : -1;",
      "return vector > this.processorPriority ? vector : -1;",
      "LocalApic delivers by priority: class above PPR only",
    ],
  ]),
  ...mutationsOf("src/devices/pit.ts", "src/devices/pit_test.ts", [
    [
      "port 61h: a source that is disabled goes on requesting an NMI",
      "if (value & off) this.#setChecks(this.state.checks & ~status);",
      "",
      "Pit: SERR# and IOCHK# stay in port 61h and request an NMI until they are disabled",
    ],
  ]),
  ...mutationsOf("src/builder/board.ts", "src/builder/services_test.ts", [
    [
      "port 70h masks no NMI",
      "this.pit.nmi && !this.rtc.state.nmiMasked",
      "this.pit.nmi",
      "SERR# and IOCHK# are NMIs, by port 61h, port 70h and LINT1, amd hvm shadow",
    ],
    [
      "INIT resets only the local APIC",
      'if (kind === "init" && processor === 0) reset("INIT");\n      else if',
      "if",
      "INIT by an IPI to its own id resets the only processor, intel hvm hap",
    ],
  ]),
  ...mutationsOf("src/devices/pic.ts", "src/devices/pic_test.ts", [
    [
      "8259: EOI lost",
      "chip.isr &= ~(1 << line);",
      "",
      "Pic gives the vector of the highest request and holds back lower ones until EOI",
    ],
    [
      "8259: the mask ignored",
      "const wanted = highest(chip, chip.irr & ~chip.imr);",
      "const wanted = highest(chip, chip.irr);",
      "Pic masks by OCW1 and reads IRR, ISR, IMR",
    ],
    [
      "8259: no spurious vector of the slave",
      "vector = slave.base + (second < 0 ? 7 : second);",
      "vector = slave.base + (second < 0 ? 0 : second);",
      "Pic answers IRQ 7 and 15 for requests that went away",
    ],
  ]),
  ...mutationsOf("src/builder/board.ts", DIGEST_TEST, [
    [
      "digest: chips as they were when somebody last looked after them",
      "for (const device of devices) device.run(now);",
      "",
      "digest: a chip is seen as the guest would find it, however long ago it was looked after",
    ],
  ]),
  ...mutationsOf("src/debug/views/visible.ts", DIGEST_TEST, [
    [
      "digest: the last frame forgotten",
      "gfn < count; gfn++",
      "gfn < count - 1; gfn++",
      "digest: each change shows in its section and in no other, amd shadow",
    ],
    [
      "digest: an MSR of the bare processor from its row's first place",
      "(row.home >> 3) + number - row.number",
      "row.home >> 3",
      "digest: each change shows in its section and in no other, intel bare",
    ],
  ]),
];
