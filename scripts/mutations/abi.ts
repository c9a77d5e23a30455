/**
 * Mistakes in the descriptions of Xen's ABI, and in how structures are laid out.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const HEADERS = "tests/oracle/xen_headers_test.ts", LAYOUT = "src/abi/layout_test.ts";
const NARROW = "src/abi/xen says what Xen's headers say, 32-bit";
const WIDE = "src/abi/xen says what Xen's headers say, 64-bit";

export const ABI_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf("src/abi/layout.ts", HEADERS, [
    [
      "64-bit integers align to 8 in i386's structures",
      "return Math.min(sizeOf(type, width), width / 8);",
      "return sizeOf(type, width);",
      NARROW,
    ],
    [
      "a union's fields follow each other",
      '(kind === "union" ? 0 : roundUp(end, alignOf(type, width)))',
      "roundUp(end, alignOf(type, width))",
      WIDE,
    ],
    [
      "a structure ends where its last field does",
      "return type.offsets ? end : roundUp(end, alignOf(type, width));",
      "return end;",
      NARROW,
    ],
  ]),
  ...mutationsOf("src/abi/layout.ts", LAYOUT, [
    [
      "a part of an integer is written over its neighbours",
      "return (old & ~(mask << shift)) |",
      "return old |",
      "parts of an integer are fields by themselves",
    ],
  ]),
  ...mutationsOf("src/abi/xen/sched.ts", HEADERS, [
    ["a number of a reason is wrong", "watchdog: 4,", "watchdog: 3,", NARROW],
  ]),
  ...mutationsOf("src/abi/xen/vcpu.ts", HEADERS, [
    [
      "a structure's fields are swapped",
      '  offset: "u32",\n  rsvd: "u32",',
      '  rsvd: "u32",\n  offset: "u32",',
      WIDE,
    ],
  ]),
  ...mutationsOf("src/abi/xen/xen.ts", HEADERS, [
    ["a field lost its sign", 'tsc_shift: "i8"', 'tsc_shift: "u8"', WIDE],
  ]),
  ...mutationsOf("src/abi/xen/hvm/ioreq.ts", HEADERS, [
    ["bit fields are swapped", "dir: 1, df: 1", "df: 1, dir: 1", NARROW],
  ]),
  ...mutationsOf("src/abi/xen/hypercalls.ts", "src/abi/xen/hypercalls_test.ts", [
    [
      "64-bit arguments of 32-bit code have their upper half first",
      "value | word() << 32n",
      "value << 32n | word()",
      "arguments of 64 bits take two registers of 32-bit code, the lower half first",
    ],
  ]),
];
