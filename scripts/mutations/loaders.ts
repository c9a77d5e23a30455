/**
 * Mistakes in loaders, in what firmware leaves, on the bus, and at the A20 gate.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const CUT = "src/builder/cut_off_test.ts", LOADERS = "src/builder/loaders_test.ts";
const FIRMWARE = "src/builder/firmware_test.ts", A20 = "src/builder/a20_test.ts";

export const LOADER_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf("src/builder/acpi.ts", "src/builder/acpi_test.ts", [
    [
      "one processor's DSDT has a device for it",
      "if (count === 1) return [];",
      "",
      "makeAcpi() gives one processor the tables that a guest of one has always had",
    ],
  ]),
  ...mutationsOf("src/builder/mp.ts", "src/builder/mp_test.ts", [
    [
      "the MP tables call every processor the first",
      "(id === 0 ? MP_PROCESSOR_BOOTSTRAP : 0)",
      "MP_PROCESSOR_BOOTSTRAP",
      "the MP tables list processors, the bus, the IO-APIC and its interrupts",
    ],
    [
      "the MP tables' timer is at pin 0",
      "OVERRIDES.find((other) => other.line === line)",
      "OVERRIDES.find((other) => other.line === line && line !== 0)",
      "the MP tables list processors, the bus, the IO-APIC and its interrupts",
    ],
  ]),
  ...mutationsOf("src/builder/elf.ts", LOADERS, [
    [
      "an ELF is entered at the virtual address",
      "if (segment) return elf.entry - segment.vaddr + segment.paddr;",
      "if (segment) return elf.entry;",
      "loadMultiboot() enters an ELF that is linked high and loaded low at the physical address",
    ],
  ]),
  ...mutationsOf("src/builder/bzimage.ts", CUT, [
    [
      "a signed bzImage may lack its signature",
      "if (image.length < signed) {",
      "if (image.length < 0) {",
      "a signed bzImage is refused at every length but its own",
    ],
    [
      "a bzImage may lack its last bytes",
      "(protocol >= 0x208 ? 0 : 15)",
      "15",
      "a bzImage is refused at every length but its own",
    ],
  ]),
  ...mutationsOf("src/builder/firmware.ts", FIRMWARE, [
    [
      "the timer's vector counts nothing",
      "    inc eax\n",
      "",
      "a kernel finds BIOS data, vectors, chips and x87 as firmware leaves them, intel bare hap",
    ],
    [
      "conventional memory reaches to the video memory",
      "memory_kilobytes: PC.ebda >> 10,",
      "memory_kilobytes: 640,",
      "a kernel finds BIOS data, vectors, chips and x87 as firmware leaves them, amd hvm shadow",
    ],
    [
      "a ROM finds x87 as after FNINIT",
      "if (!BOOTS[loaded.boot].firmware) return;\n  cpu.setFloat(FLOAT_INIT);",
      "cpu.setFloat(FLOAT_INIT);",
      "a ROM finds its log, the memory's size and the map, intel hvm hap",
    ],
  ]),
  ...mutationsOf("src/abi/boot/images.ts", "src/builder/loaders_test.ts", [
    [
      "an ELF without a note boots as pvh",
      'boots: pc("vmlinux"),',
      'boots: { ...pc("vmlinux"), pvh: "vmlinux" },',
      "each kind of image boots in the types that its row names, and in no other",
    ],
    [
      "a ROM is given a ramdisk that it never sees",
      "takes: [],",
      'takes: ["ramdisk"],',
      "multiboot and PVH kernels get every module with its text, others refuse them",
    ],
  ]),
  ...mutationsOf("src/devices/bus.ts", "src/devices/bus_test.ts", [
    [
      "an access runs over a device's last port",
      "for (let i = 1; i < size; i++) if (this.owners[port + i] !== device) return undefined;",
      "",
      "Bus hands every byte to the device that owns it, and none to another, at every edge",
    ],
    [
      "a wide access reaches the exit port from below",
      "return i > 0 && device?.registers?.[port + i] ? undefined : device;",
      "return device;",
      "the exit port takes what begins there, and not what runs over it",
    ],
  ]),
  ...mutationsOf("src/xen/p2m.ts", A20, [
    [
      "a closed A20 gate leaves the nested tables",
      "      this.#write(this.#slot(at), entry);\n    }\n    for (const told of this.onGate) told();",
      "    }\n    for (const told of this.onGate) told();",
      "the A20 gate masks addresses, amd hvm hap",
    ],
    [
      "a closed A20 gate leaves the shadow tables",
      "    for (const told of this.onGate) told();",
      "",
      "the A20 gate masks addresses, intel hvm shadow",
    ],
  ]),
  ...mutationsOf("src/xen/guest_walk.ts", A20, [
    [
      "a guest's tables are read past the A20 gate",
      "frame = this.p2m.canonical(guestFrame);",
      "frame = guestFrame;",
      "the A20 gate masks addresses, amd hvm shadow",
    ],
  ]),
  ...mutationsOf("src/builder/board.ts", A20, [
    [
      "port 92h and the keyboard controller have a gate each",
      "this.keyboard.a20 = this.acpi.a20 = open;",
      "",
      "the A20 gate masks addresses, intel bare hap",
    ],
  ]),
];
