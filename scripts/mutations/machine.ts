/**
 * Mistakes in the processor: paging, segmentation, events, system instructions.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const MACHINE = "src/machine", CPU_TEST = `${MACHINE}/cpu_test.ts`;
const PAGING_TEST = `${MACHINE}/mmu/paging_test.ts`, NESTED_TEST = `${MACHINE}/mmu/nested_test.ts`;
const EXCEPTIONS_TEST = `${MACHINE}/system/exceptions/exceptions_test.ts`;
const HOT_DEVICE_TEST = `${MACHINE}/interpreter/hot_device_test.ts`;
const SEGMENTATION_TEST = `${MACHINE}/system/segmentation/segmentation_test.ts`;
const SYSTEM_TEST = `${MACHINE}/isa/semantics/system_test.ts`;
const LONG_TEST = `${MACHINE}/isa/semantics/long_test.ts`;
const RIGHTS = "rights of pages, by every combination of bits and every kind of access";
const FORMATS = "accessed and dirty bits are set at every level, by what uses it";

const PROCESSORS_TEST = `${MACHINE}/processors_test.ts`;
const OTHERS = "processors see what others write: tables, code, data (hot handlers true)";

const COLUMNS = "privilege, mode, intercepts and flags of the table are those of the semantics";
const IMPLIED =
  "what the table says of state beside operands and flags, semantics look at and change";

export const MACHINE_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf(`${MACHINE}/isa/encodings_system.ts`, `${MACHINE}/isa/columns_test.ts`, [
    ["a column: CPUID is privileged", "exit:cpuid", "cpl0 exit:cpuid", COLUMNS],
    ["a column: an exit too many", "exit:wbinvd", "exit:wbinvd,invd", COLUMNS],
    ["a column: a flag read too many", "exit:mwait r:i", "exit:mwait r:id", COLUMNS],
    ["a column: a register read too many", "monitor in:rax,rcx", "monitor in:rax,rcx,rdx", IMPLIED],
    ["a column: LDMXCSR leaves MXCSR alone", "sse out:mxcsr", "sse", IMPLIED],
    [
      "a column: SYSENTER goes on behind itself",
      "sep pmgp w:i call",
      "sep pmgp w:i",
      "what never goes on behind itself jumps, returns or calls",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/isa/semantics/system_calls.ts`, `${MACHINE}/isa/columns_test.ts`, [[
    "SYSENTER asks for protection past the door",
    "function sysenter(m: Meaning): void {\n",
    "function sysenter(m: Meaning): void {\n  m.faultIf(protectedMode().eqz(), 13, 0, CHECK.real);\n",
    "flags, CPL and protection are looked at through the doors of Meaning alone",
  ]]),
  ...mutationsOf(`${MACHINE}/isa/encodings_simd.ts`, `${MACHINE}/isa/columns_test.ts`, [
    ["a column: EMMS leaves x87 alone", "mmx inout:x87", "mmx", IMPLIED],
    ["a column: MASKMOVQ looks at RSI", "Pq,Nq  sse in:rdi", "Pq,Nq  sse in:rdi,rsi", IMPLIED],
    [
      "a column: packed floats leave MXCSR alone",
      "Vx,Wx${immediate}  sse inout:mxcsr",
      "Vx,Wx${immediate}  sse",
      IMPLIED,
    ],
  ]),
  ...mutationsOf(`${MACHINE}/isa/encodings_x87.ts`, `${MACHINE}/isa/columns_test.ts`, [
    [
      "a column: FNSTCW changes x87",
      "fnstcw  d9 /7  Mw  x87 in:x87",
      "fnstcw  d9 /7  Mw  x87",
      IMPLIED,
    ],
  ]),
  ...mutationsOf(`${MACHINE}/isa/encodings_integer.ts`, `${MACHINE}/isa/columns_test.ts`, [[
    "a column: another kind of lazy flags",
    "lock w:oszapc lazy:sub hot:all",
    "lock w:oszapc lazy:add hot:all",
    "lazy flags are left in the kind that the table names, always",
  ]]),
  ...mutationsOf(`${MACHINE}/wasm/cells.ts`, `${MACHINE}/wasm/cells_test.ts`, [
    [
      "a cell of several values overlaps the next",
      "at += width;",
      "at += alignment;",
      "no two cells of memory 0 overlap",
    ],
    [
      "two lists of cells share an area",
      "filled.add(area);",
      "",
      "an area is filled once, and a block of it is always the same area",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/isa/decode.ts`, `${MACHINE}/vendors_test.ts`, [[
    "AMD's near branches ignore 66 as Intel's do",
    "(as & DECODE_AS.cutsBranches) !== 0",
    "(as & DECODE_AS.cutsBranches) < 0",
    "branch.66: it makes the operand size 16: RIP is cut, CALL and RET move 2 bytes, E8 and E9 have " +
    "rel16 (amd)",
  ]]),
  ...mutationsOf(`${MACHINE}/system/segmentation/linear.ts`, `${MACHINE}/vendors_test.ts`, [[
    "flat code that wraps at 4 GiB asks no segment",
    "f.if(linear.gtU(-bits / 8), () => {",
    "f.if(linear.gtU(-bits / 8).and(0), () => {",
    "segment.wrap: it is outside the limit: #GP(0), #SS(0) on the stack (amd)",
  ]]),
  ...mutationsOf(`${MACHINE}/system/segmentation/tasks.ts`, SEGMENTATION_TEST, [[
    "a 16-bit TSS clears the upper halves of registers",
    "i32(0xffff_0000 | 0)",
    "i32(0)",
    "a switch to a 16-bit TSS leaves ones in the upper halves of registers, zeros in EIP's",
  ]]),
  ...mutationsOf(`${MACHINE}/counters.ts`, `${MACHINE}/counters_test.ts`, [
    [
      "RDPMC counts itself",
      "cpu.counted - 1 - this.#count",
      "cpu.counted - this.#count",
      "a counter of retired instructions counts each once, between two of RDPMC or RDMSR",
    ],
    [
      "events are not counted by the privilege level",
      "if (!(low & (this.#system ? B.system : B.user))) return false;",
      "if (!(low & (B.system | B.user))) return false;",
      "user and system counters count by the privilege level, an exception where it was raised",
    ],
    [
      "an overflow is seen when the slice ends by itself",
      "if (i32[select(n)] & B.interrupt) most = Math.min(most, rest);",
      "if (i32[select(n)] & B.interrupt) most = Math.min(most, limit + rest);",
      "an overflow interrupts at the instruction that overflows, and the counter goes on from 0",
    ],
    [
      "what is counted when a select is written is lost",
      "if (this.enabled) this.settle();",
      "if (this.enabled) this.begin();",
      "user and system counters count by the privilege level, an exception where it was raised",
    ],
  ]),
  ...mutationsOf(
    `${MACHINE}/system/exceptions/coprocessor.ts`,
    `${MACHINE}/isa/semantics/x87_test.ts`,
    [[
      "the processor does not wait for the interrupt of FERR#",
      "() => setCell(f, V.abort, ABORT.frozen)",
      "() => {}",
      "with CR0.NE clear a pending exception is FERR#: the platform says whether to wait",
    ]],
  ),
  ...mutationsOf(`${MACHINE}/interpreter/hot_meaning.ts`, HOT_DEVICE_TEST, [
    [
      "a hot access does not see that a device has ended the slice",
      "access();\n    reloadLeft(this.f, this.loop);",
      "access();",
      "hot handlers whose operand or stack is a device's do as the cold ones (32 bits)",
    ],
    [
      "a hot access does not tell a device its time",
      "setCell(this.f, V.left, leftBehind(this.loop));\n    access();",
      "access();",
      "hot handlers whose operand or stack is a device's do as the cold ones (64 bits)",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/isa/semantics/data.ts`, HOT_DEVICE_TEST, [[
    "POP to memory goes round the common store",
    "m.storeLinear(bits, m.addressOf(0, bits / 8, true), value);",
    "m.callChecked(`st${bits}`, m.addressOf(0, bits / 8, true).zext(), i32(0), value);",
    "hot handlers whose operand or stack is a device's do as the cold ones (32 bits)",
  ]]),
  ...mutationsOf(`${MACHINE}/interpreter/predecode.ts`, `${MACHINE}/high_memory_test.ts`, [[
    "code above 2 GiB is read where a signed address points",
    "this.ram.subarray(second * 4096, second * 4096 + 15)",
    "this.ram.subarray(second << 12, (second << 12) + 15)",
    "code, stack, tables and data are the same about 2 GiB and below 3 GiB (flat32)",
  ]]),
  ...mutationsOf(`${MACHINE}/mmu/walk.ts`, PAGING_TEST, [
    [
      "NX ignored",
      "fail(acc.and(ACCESS.fetch).nez().and(noExecute), CHECK.fetch);",
      "",
      RIGHTS,
    ],
    [
      "user accesses to supervisor pages allowed",
      "fail(rights.and(U).eqz(), CHECK.user);",
      "",
      RIGHTS,
    ],
    [
      "CR0.WP ignored",
      ".and(cell64(CPU.cr0).shrU(15).wrap()), CHECK.write);",
      ".and(0), CHECK.write);",
      RIGHTS,
    ],
    ["SMEP ignored", "fail(acc.shrU(4).and(atBit(cr4, CR4.SMEP)).and(1), CHECK.smep);", "", RIGHTS],
    [
      "SMAP ignored",
      "fail(acc.and(ACCESS.smap).nez().and(acc.and(ACCESS.fetch).eqz()), CHECK.smap);",
      "",
      RIGHTS,
    ],
    [
      "rights of the last level alone count",
      "f.set(rights, rights.and(entry.wrap()));",
      "f.set(rights, entry.wrap());",
      RIGHTS,
    ],
    [
      "a write sets no dirty bit",
      "() => f.set(now, now.or(D)));",
      "() => f.set(now, now.or(A)));",
      FORMATS,
    ],
    [
      "accessed bits above the last level not set",
      "f.set(i, i.add(1));\n    f.set(now, old.or(A));",
      "f.set(i, i.add(1));\n    f.set(now, old.or(i32(A).when(i.eq(steps), i32(0)).zext()));",
      FORMATS,
    ],
    [
      "reserved bits of large pages not checked",
      "f.if(big, () => {\n        f.set(reserved,",
      "f.if(big.and(0), () => {\n        f.set(reserved,",
      "reserved bits of entries are #PF with RSVD",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/mmu/access.ts`, PROCESSORS_TEST, [
    [
      "a shootdown forgotten: a store to a page table drops the own translations only",
      "elsewhere(f, flags.and(FRAME_FLAG.table), V.tableMark, frame, SHOOTDOWN.all);",
      "",
      OTHERS,
    ],
    [
      "a flush takes the marks of all processors off the frames it wrote",
      "flags.and(cell(V.writeMark).xor(-1))",
      "flags.and(~FRAME_FLAG.inWriteTlb)",
      OTHERS,
    ],
    [
      "a flush takes the marks of all processors off its tables",
      "flags.and(cell(V.tableMark).xor(-1))",
      "flags.and(~FRAME_FLAG.table)",
      OTHERS,
    ],
  ]),
  ...mutationsOf(`${MACHINE}/mmu/walk.ts`, PROCESSORS_TEST, [[
    "another processor goes on writing what has become a page table",
    "elsewhere(f, flags.and(FRAME_FLAG.inWriteTlb), V.writeMark, entry, SHOOTDOWN.writes);",
    "",
    OTHERS,
  ]]),
  ...mutationsOf(`${MACHINE}/host.ts`, PROCESSORS_TEST, [[
    "code is not dropped on the other processor",
    "machine.dropCode(frame)",
    "cpu.predecoder.invalidate(frame)",
    OTHERS,
  ]]),
  ...mutationsOf(`${MACHINE}/cpu.ts`, PROCESSORS_TEST, [
    [
      "another processor goes on writing what has become code",
      "dropWrites: (frame) => machine.dropWrites(frame)",
      "dropWrites: () => system.dropWrites()",
      OTHERS,
    ],
  ]),
  ...mutationsOf(`${MACHINE}/interpreter/predecode.ts`, PROCESSORS_TEST, [[
    "a processor that forgets its code takes the marks of the others'",
    "if (!this.host.elsewhere(frame)) this.#clearMarks(frame);",
    "this.#clearMarks(frame);",
    OTHERS,
  ]]),
  ...mutationsOf(`${MACHINE}/mmu/access.ts`, CPU_TEST, [
    [
      "a store to a page table drops no translation",
      "f.if(flags.and(FRAME_FLAG.table), () => storeToTable(f, { frame, flags }, pa, bits, value));",
      "",
      "a changed page-table entry takes effect without INVLPG (general)",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/mmu/access.ts`, PAGING_TEST, [
    [
      "writes to a page table go through the TLB",
      "const SLOW_WRITE = FRAME_FLAG.code | FRAME_FLAG.table |",
      "const SLOW_WRITE = FRAME_FLAG.code |",
      "a page table is watched however often it is written (hot)",
    ],
    [
      "a store across two pages takes one translation",
      `const second = f.let(wrapLinear(linear.add(bytes - 1).and(-4096n)));
        const next = f.call("translate", second, acc.or(ACCESS.write));`,
      `const second = f.let(wrapLinear(linear.add(bytes - 1).and(-4096n)));
        const next = f.let(pa.add(4096).and(-4096n).add(second.and(0)));`,
      "an access across two pages uses the translation of each (hot)",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/mmu/nested.ts`, NESTED_TEST, [
    [
      "nested rights ignored",
      "f.if(wanted.and(rights.not()).nez().and(acc.and(ACCESS.probe).eqz()), () => violation());",
      "",
      "rights of nested pages, at every level",
    ],
    [
      "nested rights of the last level alone count",
      "f.set(rights, rights.and(low));",
      "f.set(rights, low.and(7));",
      "rights of nested pages, at every level",
    ],
    [
      "nested fault: the qualification says data for a walk",
      ".or(valid.and(isTable.eqz()).shl(8))",
      ".or(valid.shl(8))",
      "rights of nested pages, at every level",
    ],
    [
      "nested accessed and dirty flags not set",
      'f.if(now.ne(entry), () => f.call("tableStore64", where, now));',
      "",
      "nested accessed and dirty flags, and none without EPTP bit 6",
    ],
    [
      "a nested entry that is writable and not readable is taken",
      "f.if(low.and(3).eq(2), () => f.return(i32(1)));",
      "",
      "malformed nested entries are misconfigurations",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/system/control_state.ts`, `${MACHINE}/system/control_rules_test.ts`, [
    [
      "the processor takes a write of CR4 that breaks a rule",
      `obey(f, "cr4", value, { now, old });`,
      "",
      "the processor and the hypervisor refuse the same writes of cr4",
    ],
    [
      "of several conditions of a rule the first counts",
      "const broken = rule.when.map(",
      "const broken = rule.when.slice(0, 1).map(",
      "the processor and the hypervisor refuse the same writes of cr0",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/system/control_state.ts`, PAGING_TEST, [
    [
      "MOV to CR3 drops no translation",
      `setCell64(f, CPU.cr3, cr3);\n    f.call("flushTlb");`,
      "setCell64(f, CPU.cr3, cr3);",
      "MOV to CR3, CR4 and EFER drop what they change (hot)",
    ],
    [
      "a change of EFER.NXE drops no translation",
      `f.if(changed.and(EFER.NXE), () => f.call("flushTlb"));`,
      "",
      "MOV to CR3, CR4 and EFER drop what they change (hot)",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/system/segmentation/linear.ts`, PAGING_TEST, [
    [
      "64-bit addresses need not be canonical",
      "isCanonical(linear).and(isCanonical(linear.add(bytes.zext()).sub(1))).eqz(),",
      "isCanonical(linear).and(isCanonical(linear.add(bytes.zext()).sub(1))).and(0),",
      "64-bit addresses must be canonical, to their last byte (hot)",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/system/segmentation/linear.ts`, SEGMENTATION_TEST, [
    [
      "segment limits checked without the access's size",
      "const last = f.let(offset.add(bytes.zext()).sub(1));",
      "const last = f.let(offset.add(bytes.zext().and(0)));",
      "limits hold to the last byte, expand-down ones from the first",
    ],
    [
      "expand-down segments end at their limit",
      "offset.leU(limit).or(last.gtU(top)),",
      "offset.ltU(limit).or(last.gtU(top)),",
      "limits hold to the last byte, expand-down ones from the first",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/system/segmentation/load.ts`, SEGMENTATION_TEST, [
    [
      "data segments: the selector's RPL not checked",
      "const below = dpl.ltU(level).or(dpl.ltU(selector.and(3)));",
      "const below = dpl.ltU(level);",
      "fault: DS with an RPL above its DPL",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/system/exceptions/deliver.ts`, EXCEPTIONS_TEST, [
    [
      "an interrupt shadow outlives the event",
      "setCell(f, CPU.interruptibility, cell(CPU.interruptibility).and(~SHADOW));",
      "",
      "an event ends the shadow it came in",
    ],
    [
      "an NMI does not block the next",
      "setCell(f, CPU.interruptibility, cell(CPU.interruptibility).or(INTERRUPTIBILITY.nmi));",
      "",
      "an NMI blocks the next until IRET",
    ],
    [
      "a page fault leaves CR2 alone",
      "() => setCell64(f, CPU.cr2, cell64(V.faultAddress)),",
      "() => {},",
      "a page fault writes CR2 and pushes its error code",
    ],
    [
      "a #PF in the course of a #PF is no double fault",
      "pageFault(first).and(severe)",
      "pageFault(first).and(contributory(second))",
      "two page faults make a double fault, a #GP behind a #DE as well",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/system/segmentation/iret.ts`, EXCEPTIONS_TEST, [
    [
      "IRET leaves NMIs blocked",
      "setCell(f, CPU.interruptibility, cell(CPU.interruptibility).and(ends));",
      "",
      "an NMI blocks the next until IRET",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/isa/semantics/system_calls.ts`, LONG_TEST, [
    [
      "SYSCALL ignores SFMASK",
      "flags.and(cell(CPU.sfmask).or(RFLAGS.RF).not()).or(RFLAGS.fixed)",
      "flags.and(i32(RFLAGS.RF).not()).or(2)",
      "SYSCALL and SYSRET: addresses, flags, selectors",
    ],
    [
      "SYSCALL from compatibility mode goes to LSTAR",
      "cell64(CPU.lstar).when(wide, cell64(CPU.cstar))",
      "cell64(CPU.lstar).when(wide, cell64(CPU.lstar))",
      "SYSCALL in compatibility mode goes to CSTAR on AMD, and is undefined on Intel",
    ],
    [
      "SYSRET takes an address that is not canonical",
      "m.faultIf(bad, VECTOR.GP, 0, CHECK.canonical, ip);",
      "",
      "SYSCALL and SYSRET: addresses, flags, selectors",
    ],
    [
      "SYSRET's stack selector from the wrong place",
      "setCodeAndStack(m, code, base.add(8).or(3), 3,",
      "setCodeAndStack(m, code, base.add(16).or(3), 3,",
      "SYSCALL and SYSRET: addresses, flags, selectors",
    ],
    [
      "SWAPGS loses the old base",
      "setCell64(m.f, CPU.kernelGsBase, old);",
      "",
      "SWAPGS exchanges, at privilege 0 alone",
    ],
  ]),
  ...mutationsOf(`${MACHINE}/system/msr_state.ts`, SYSTEM_TEST, [
    [
      "a locked IA32_FEATURE_CONTROL can be written",
      `if (r.rule === "locked") fail(cell64(r.home!).and(1).nez(), CHECK.locked);`,
      "",
      "IA32_FEATURE_CONTROL can be locked once",
    ],
    [
      "a write of the TSC does not show in IA32_TSC_ADJUST",
      "cell64(CPU.tscAdjust).add(value.sub(timeStamp()))",
      "cell64(CPU.tscAdjust).sub(value.sub(timeStamp()))",
      "RDTSC counts instructions; a write shows in IA32_TSC_ADJUST",
    ],
  ]),
];
