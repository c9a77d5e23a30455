/**
 * Mistakes of the hypervisor: in the function table over the hardware, and in what it does for a
 * guest.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const VMX_TEST = "src/hvm/vmx/ops_test.ts", XEN_TEST = "src/xen/hvm_test.ts";
const HALT_TEST = "src/xen/halt_test.ts", PDPTE_TEST = "src/hvm/pdpte_test.ts";
const DEBUGGED = "src/debug/events/emulation_test.ts";
const MONITOR_TEST = "src/xen/monitor_test.ts";
const SEVERAL_TEST = "src/debug/several_test.ts";
const NOT_ANEW = "a switch between vCPUs makes nothing anew for those who look (intel, hap, on 1)";
const KINDS_TEST = "src/debug/kinds_test.ts";
const OBSERVED = "src/debug/events/observed_test.ts";
const REPEATED = "src/xen/repeated_io_test.ts";
const REPEATS = "REP INS and OUTS: many iterations in an exit are as one by one (intel, hap)";
const REPEATS_ALWAYS = "so they are in every mode, up to a fault or an NMI (amd hap)";
const TRACED =
  "exits of every kind are traced, exceptions of emulated instructions too, and the guest sees nothing of it";
const SWITCHED = "VMX: two vCPUs on a processor keep what hardware does not switch";

const NMIS =
  "of NMIs that come together one is taken and one waits; while one is handled, one waits (intel hap)";
const STARTED =
  "vCPUs are started up, interrupted, begun anew, and count together (intel, hap, 2 vCPUs on 1)";

export const HVM_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf("src/xen/hvm.ts", "src/xen/slices_test.ts", [
    [
      "an interrupt goes in before its window has opened",
      "if (this.#window) return;",
      "",
      "whoever looks what is due before a window opens changes nothing (intel, hap)",
    ],
  ]),
  ...mutationsOf("src/xen/engine.ts", MONITOR_TEST, [
    [
      "a hook is not called when a part of a run is over",
      "for (const hook of hooks) hook.ran(instructions);",
      "",
      "a place where both are told is passed once, also at the end of a step (intel hap)",
    ],
    [
      "a hook is not called when the vCPU comes to the processor",
      "for (const hook of this.hooks) hook.attached();",
      "",
      "two observers of one domain see what each asked for, and change nothing (amd bare)",
    ],
    [
      "the first hook alone is called at a breakpoint",
      "const stops = hooks.map(",
      "const stops = hooks.slice(0, 1).map(",
      "two observers of one domain see what each asked for, and change nothing (intel shadow)",
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", MONITOR_TEST, [
    [
      "the first hook alone is called at an exit",
      "const verdicts = [...this.hooks].map(",
      "const verdicts = this.hooks.slice(0, 1).map(",
      "of two verdicts on an exit a stop wins, else the first, and one is carried out (amd hap)",
    ],
    [
      "the exits of the first observer alone are asked for",
      "interceptsOf(wishes.flat())",
      "interceptsOf(wishes[0] ?? [])",
      "two observers of one domain see what each asked for, and change nothing (intel hap)",
    ],
    [
      "a stop of an exit does not win",
      `verdicts.find((it) => it?.kind === "stop") ??`,
      "",
      "of two verdicts on an exit a stop wins, else the first, and one is carried out (amd hap)",
    ],
  ]),
  ...mutationsOf("src/xen/monitor.ts", SEVERAL_TEST, [
    [
      "a breakpoint's code is dropped on one processor, and the marks of all",
      "machine.dropCode(at / (FRAME.size / 4));",
      "this.#cpu.predecoder.invalidate(at / (FRAME.size / 4));",
      "saved at a stop of any vCPU and loaded, all goes on the same (intel, hap, on 2)",
    ],
    [
      "code is predecoded anew when who looks leaves the processor",
      "  detaching(): void {\n",
      "  detaching(): void {\n    this.#invalidate(this.#offsets.keys());\n",
      NOT_ANEW,
    ],
    [
      "marks of a domain that is destroyed stay",
      "    for (const address of [...this.#addresses]) this.setAddress(address, false);\n",
      "",
      NOT_ANEW,
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", SEVERAL_TEST, [[
    "exits to be seen are asked for at every switch",
    "if (this.#outdated) this.#showIntercepts(true);",
    "this.#showIntercepts(true);",
    NOT_ANEW,
  ]]),
  ...mutationsOf("src/xen/monitor.ts", "src/debug/debugger_test.ts", [
    [
      "a breakpoint that was passed is met again by who looks anew",
      "    if (this.#passed.count === this.vcpu.count) this.#cpu.observation.pass(this.#passed.rip);\n",
      "",
      "until() goes on from the place where the domain stands to the next time there (hvm)",
    ],
  ]),
  ...mutationsOf("src/debug/events/breakpoint.ts", SEVERAL_TEST, [[
    "a breakpoint of one vCPU stops any",
    "return named === undefined || named === vcpu;",
    "return true;",
    "a breakpoint stops whichever vCPU comes there, or the one that it names (intel, hap, on 1)",
  ]]),
  ...mutationsOf("src/xen/monitor.ts", MONITOR_TEST, [[
    "others are not told where a step ends",
    "for (const hook of [...this.vcpu.engine.hooks]) hook.stepEnded();",
    "this.stepEnded();",
    "a place where both are told is passed once, also at the end of a step (intel hap)",
  ]]),
  ...mutationsOf("src/machine/observation.ts", MONITOR_TEST, [[
    "the processor asks the first of its observers alone",
    "return this.cpu.observers.some((o) => o.hasBreakpoint(low, high));",
    "return this.cpu.observers[0]?.hasBreakpoint(low, high) ?? false;",
    "two observers of one domain see what each asked for, and change nothing (intel hap)",
  ]]),
  ...mutationsOf("src/hvm/guest_memory.ts", "src/hvm/guest_memory_test.ts", [[
    "large pages of guests are looked at as small ones",
    "return frameOf(mode, level, ...entry, low) * 4096",
    "return frameOf(mode, 1, ...entry, low) * 4096",
    "a look at a guest's memory finds what the processor's own walk does, in every mode",
  ]]),
  ...mutationsOf("src/hvm/exit_kinds.ts", KINDS_TEST, [
    [
      "a row lacks its intercept",
      `    intercept: "flag",
    handled: "emulate",
  },
  "task-switch": {`,
      `    handled: "emulate",
  },
  "task-switch": {`,
      "the intercepts of kinds: their own, or as far as a filter says",
    ],
    [
      "a row's intercept takes another register",
      "const bits = (is(3) ? 8 : 0)",
      "const bits = (is(4) ? 8 : 0)",
      "the intercepts of kinds: their own, or as far as a filter says",
    ],
    [
      "a row lacks a field that is made",
      "name: vectorName(vector), errorCode,",
      "errorCode,",
      "an exit's fields are seen as its row says: halves joined, names beside numbers",
    ],
  ]),
  ...mutationsOf("src/debug/kinds.ts", KINDS_TEST, [[
    "an access to memory is a device's",
    "!guest.isMemory(gpa as number)",
    "gpa !== undefined && guest !== undefined",
    "an exit goes by its own name, by those of which it is one, and last by any",
  ]]),
  ...mutationsOf("src/hvm/exit_kinds.ts", "src/debug/events/filters_test.ts", [[
    "a row's range is too wide",
    `port: { is: "number", max: 0xffff,`,
    `port: { is: "number", max: 0x1ffff,`,
    "a filter that no event can match is refused",
  ]]),
  ...mutationsOf("src/hvm/exit_kinds.ts", VMX_TEST, [[
    "a row's range is narrower than what the decoders give",
    `dr: { is: "number", max: 7 }`,
    `dr: { is: "number", max: 6 }`,
    "VMX: enter() leaves by MOV to DR",
  ]]),
  ...mutationsOf("src/hvm/exit_kinds.ts", "scripts/kinds_page_test.ts", [[
    "the page of kinds is older than the rows",
    `meaning: "PAUSE"`,
    `meaning: "REP NOP"`,
    "docs/kinds.md is what the rows give: deno task kinds writes it",
  ]]),
  ...mutationsOf("src/xen/hvm.ts", REPEATED, [
    [
      "nothing that is due comes between the iterations of REP OUTS",
      "if (due || this.hooks.length > 0 || this.ioreq.any || this.#turnIsOver()) return false;",
      "if (this.hooks.length > 0 || this.ioreq.any || this.#turnIsOver()) return false;",
      REPEATS,
    ],
    [
      "the end of a turn does not come between them",
      "this.ioreq.any || this.#turnIsOver()) return false;",
      "this.ioreq.any) return false;",
      REPEATS,
    ],
    [
      "an observer sees the first of them only",
      "if (due || this.hooks.length > 0 || ",
      "if (due || ",
      REPEATS,
    ],
    [
      "a window that opens behind the first of them is overlooked",
      "(this.#window && (cpu.i32[CPU.rflags >> 2] & Number(IF)) !== 0)",
      "false",
      REPEATS,
    ],
    [
      "an NMI does not come between them",
      "<= domain.now || this.nmiPending ||",
      "<= domain.now ||",
      REPEATS_ALWAYS,
    ],
  ]),
  ...mutationsOf("src/machine/run.ts", REPEATED, [
    [
      "traps do not come between the iterations of REP OUTS",
      "if (trap || cpu.observation.met || ",
      "if (cpu.observation.met || ",
      REPEATS,
    ],
    [
      "RF is not set between them",
      "if (virtualization[cpu.model].keepsResumeFlag) this.#resumes = RF;",
      "",
      REPEATS_ALWAYS,
    ],
  ]),
  ...mutationsOf("src/machine/interpreter/record_meaning.ts", REPEATED, [
    [
      "REP INS goes on though it has written over itself",
      "f.if(record.eq(this.rec), body);",
      "f.if(record.eq(record), body);",
      REPEATS,
    ],
    [
      "REP INS goes on though its page is gone",
      `f.if(load("i64", 64, "u", entry, TLB.code).eq(page), () => {`,
      `f.if(page.eq(page), () => {`,
      REPEATS,
    ],
  ]),
  ...mutationsOf("src/machine/isa/semantics/io.ts", REPEATED, [
    [
      "REP INS goes on though its port is denied",
      "cell(V.abort),\n        () => setCell(f, V.abort, ABORT.none),",
      "i32(0),\n        () => setCell(f, V.abort, ABORT.none),",
      REPEATS,
    ],
  ]),
  ...mutationsOf("src/hvm/vmx/cpu.ts", VMX_TEST, [
    ["the switch of vCPUs forgets STAR", `  "star",\n`, "", SWITCHED],
    ["the switch of vCPUs forgets LSTAR", `  "lstar",\n`, "", SWITCHED],
    ["the switch of vCPUs forgets SFMASK", `  "sfmask",\n`, "", SWITCHED],
    ["the switch of vCPUs forgets KERNEL_GS_BASE", `  "kernelGsBase",\n`, "", SWITCHED],
    ["the switch of vCPUs forgets CR2", `  "cr2",\n`, "", SWITCHED],
    ["the switch of vCPUs forgets DR6", `  "dr6",\n`, "", SWITCHED],
  ]),
  ...mutationsOf("src/hvm/switched.ts", VMX_TEST, [
    [
      "the switch of vCPUs forgets x87 and SSE",
      "cpu.system.storeFloat(area + AREA.switched + 4 * places.length);",
      "",
      SWITCHED,
    ],
  ]),
  ...mutationsOf("src/hvm/vmx/exit.ts", VMX_TEST, [
    [
      "an event whose delivery was cut short is lost",
      "on.write(F.entryInterruptionInformation, info & ~EVENT.nmiUnblocking, 0);",
      "",
      "VMX: a nested page fault in the course of a delivery queues the event again",
    ],
    [
      "NMIs that an IRET has unblocked before it gave up stay unblocked",
      "if (vectoring >= 0) blockAgain(v, reason);",
      "",
      "an IRET that leaves tells that it has unblocked NMIs, which are blocked for its repetition",
    ],
    [
      "IN and OUT exchanged",
      "write = (q & 8) === 0;",
      "write = (q & 8) !== 0;",
      "VMX: enter() leaves by OUT to DX",
    ],
    [
      "a walk's nested fault taken for the access's",
      "walk: (q & 0x180) === 0x80,",
      "walk: (q & 0x180) === 0x180,",
      "VMX: enter() leaves by a nested page fault by a walk",
    ],
    [
      "LMSW's source taken from the wrong bits",
      "value = wide(q >>> 16, 0);",
      "value = wide(q & 0xffff, 0);",
      "VMX: enter() leaves by LMSW",
    ],
  ]),
  ...mutationsOf("src/hvm/vmx/paging.ts", VMX_TEST, [
    [
      "writable EPT pages made executable only",
      "(write ? 2n : 0n) | (execute ? 4n : 0n)",
      "(write ? 4n : 0n) | (execute ? 4n : 0n)",
      "VMX: enter() leaves by a nested page that the format makes writable, and not executable",
    ],
  ]),
  ...mutationsOf("src/hvm/vmx/controls.ts", VMX_TEST, [
    [
      "the MSR bitmap's upper range is off",
      "return 0x2000 + number - 0xc000_0000;",
      "return 0x1000 + number - 0xc000_0000;",
      "VMX: enter() leaves by WRMSR",
    ],
  ]),
  ...mutationsOf("src/machine/vmx/stub.ts", VMX_TEST, [
    [
      "an interrupt shadow stays after an instruction is completed for the guest",
      `f.if(blocked.and(3), () => vmcs.set("guestInterruptibility", blocked.and(~3)));`,
      "",
      "VMX: advance() goes past the instruction and ends shadows",
    ],
  ]),
  ...mutationsOf("src/xen/msrs.ts", XEN_TEST, [
    [
      "a guest may write what the row of an MSR refuses",
      `if (row.write === "fault" || refusesValue(row, value)) return false;`,
      `if (row.write === "fault") return false;`,
      "WRMSR of what a guest may not write is #GP (intel)",
    ],
    [
      "a guest may write a read-only MSR",
      `if (row.write === "fault" || refusesValue(row, value)) return false;`,
      `if (refusesValue(row, value)) return false;`,
      "WRMSR of what a guest may not write is #GP (intel)",
    ],
    [
      "the TSC a guest sets runs from the wrong side",
      "value - BigInt(e.domain.now) : value;",
      "BigInt(e.domain.now) - value : value;",
      "a guest that sets its TSC reads on from there (intel)",
    ],
  ]),
  ...mutationsOf("src/xen/control.ts", XEN_TEST, [
    [
      "a guest may set bits of CR4 that its processor has not",
      "cr4: e.cpuid.cr4Valid,",
      "cr4: 0xffff_ffff,",
      "MOV to CR4 of a bit the guest's processor has not is #GP (intel)",
    ],
    [
      "a guest may set reserved bits of EFER",
      "efer: e.cpuid.eferValid",
      "efer: 0xffff_ffff",
      "WRMSR of what a guest may not write is #GP (intel)",
    ],
  ]),
  ...mutationsOf("src/xen/exits.ts", XEN_TEST, [
    [
      "IN of a byte clears the rest of EAX",
      "gprs[0] = (gprs[0] & ~mask) | (value & mask);",
      "gprs[0] = value & mask;",
      "IN of a byte keeps the rest of EAX (intel)",
    ],
    [
      "HLT goes on without an interrupt",
      `return goesOn ? undefined : BLOCKED;`,
      "return goesOn ? undefined : undefined;",
      "HLT waits for the timer's interrupt, once for each (intel)",
    ],
    [
      "RDMSR forgets EDX",
      "setGpr(e, RDX, high);",
      "",
      "RDMSR gives both halves, and clears the upper ones (intel)",
    ],
    [
      "host interrupts are acknowledged and forgotten",
      "if (exit.vector >= 0) e.interrupts.handle(exit.vector);",
      "if (exit.vector >= 0) return undefined;",
      "the timer interrupts a guest that runs, by host interrupts (intel)",
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", XEN_TEST, [
    [
      "no interrupt window for a request that has to wait",
      "if (!this.ops.canInterrupt(this.hvm)) return this.#setWindow(true);",
      "if (!this.ops.canInterrupt(this.hvm)) return;",
      "an interrupt that comes with IF clear is delivered behind STI's shadow (intel)",
    ],
    [
      "an interrupt is injected though the guest cannot take it",
      "if (!this.ops.canInterrupt(this.hvm)) return this.#setWindow(true);",
      "",
      "an interrupt that comes with IF clear is delivered behind STI's shadow (intel)",
    ],
  ]),
  ...mutationsOf("src/machine/system/msrs.ts", XEN_TEST, [
    [
      "a guest may load LSTAR with an address that is not canonical",
      "return BigInt.asIntN(48, value) !== BigInt.asIntN(64, value);",
      "return value < 0n;",
      "WRMSR of what a guest may not write is #GP (intel)",
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", HALT_TEST, [
    [
      "an interrupt ends HLT whatever IF",
      "return this.interruptPending && this.#interruptsOn;",
      "return this.interruptPending;",
      "HLT with IF clear stays where it is, whatever is pending (intel hap)",
    ],
    [
      "an NMI behind another is lost",
      "signals.nmi--;",
      "signals.nmi = 0;",
      NMIS,
    ],
    [
      "two NMIs wait while one is handled",
      "signals.nmi = oneMoreNmi(0, true);",
      "signals.nmi = oneMoreNmi(1, false);",
      NMIS,
    ],
  ]),
  ...mutationsOf("src/machine/system/control_rules.ts", PDPTE_TEST, [
    [
      "CR4.PGE does not load the page-directory pointers of a shadowed guest",
      "4: CR4.PAE | CR4.PGE | CR4.PSE",
      "4: CR4.PAE | CR4.PSE",
      "page-directory pointers are loaded when CR0, CR3 and CR4 say so (amd shadow)",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/exit.ts", "src/hvm/edge_test.ts", [
    [
      "an nRIP of 0 is none",
      "=== 0 && !ofInstruction(code);",
      "=== 0;",
      "an instruction that leaves the guest may be the last of all addresses (amd hap)",
    ],
  ]),
  ...mutationsOf("src/machine/vmx/checks_guest.ts", "src/machine/vmx/checks_test.ts", [
    [
      "VM entry looks at bit 47 of RIP",
      "rip.shrS(48).add(1).leU(1);",
      "rip.shrS(47).add(1).leU(1);",
      "vmentry() accepts what stands at the edge of each check",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/controls.ts", "src/xen/hidden_test.ts", [
    [
      "RDTSCP that CPUID does not show executes on SVM",
      `|| isAbsent(v, "rdtscp");`,
      "|| false;",
      "an instruction that CPUID does not show is #UD, from the moment it does not (amd hap)",
    ],
  ]),
  ...mutationsOf("src/xen/irq.ts", "src/xen/irq_test.ts", [
    [
      "the host's EOI is lost",
      "this.localApic.endOfInterrupt();",
      "",
      "the host's timer rings again after its interrupt was handled",
    ],
    [
      "the host asks for its interrupt before its time",
      "if (now < this.#timer) return;",
      "",
      "the host's timer rings again after its interrupt was handled",
    ],
  ]),
  ...mutationsOf("src/machine/run.ts", DEBUGGED, [
    [
      "an exit in the course of a delivery is lost when it is the host's turn",
      "observation.watchedDone() ?? events.leftInDelivery() ??",
      "observation.watchedDone() ??",
      "wherever the host has its turn, every exception comes: also one whose delivery made the guest leave",
    ],
  ]),
  ...mutationsOf("src/hvm/vmx/ops.ts", DEBUGGED, [
    [
      "a #DB that is looked at is due once more",
      "on.write(F.guestPendingDebug, 0, 0);",
      "",
      TRACED,
    ],
  ]),
  ...mutationsOf("src/hvm/vmx/ops.ts", OBSERVED, [
    [
      "TS of a task switch is hidden by who looks at CR0",
      "if (mask === OWN_CR0) return enterGuest(v, options, options.budget);",
      "return enterGuest(v, options, options.budget);",
      "traces of every kind of exit do not change what the guest comes to (32 bits)",
    ],
  ]),
  ...mutationsOf("src/machine/branches.ts", OBSERVED, [
    [
      "BTF does not act",
      "(this.cpu.i32[CPU.debugctl >> 2] & DEBUGCTL.BTF) !== 0",
      "false",
      "with BTF only branches trap, and each trap ends it: on every processor, traced or not",
    ],
  ]),
  ...mutationsOf("src/hvm/shadow.ts", OBSERVED, [
    [
      "nobody is shown the page fault of an emulated instruction",
      "exceptions & ~PAGE_FAULT | asked & PAGE_FAULT",
      "exceptions & ~PAGE_FAULT",
      "a page fault of an emulated instruction is shown as others are",
    ],
  ]),
  ...mutationsOf("src/xen/engine.ts", OBSERVED, [
    [
      "a step behind HLT ends the wait",
      'return { kind: "stop", stop, blocked };',
      'return { kind: "stop", stop };',
      "steps do not change what the guest comes to (demo)",
    ],
  ]),
  ...mutationsOf("src/xen/domain.ts", OBSERVED, [
    [
      "a pause at HLT ends the wait",
      "if (vcpu.blocked && !vcpu.halted) vcpu.wake();",
      "if (vcpu.blocked) vcpu.wake();",
      "pauses do not change what the guest comes to (demo)",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/exit.ts", DEBUGGED, [
    [
      "INT1 that is looked at comes for ever",
      '? { type: "privileged-software-exception", vector, length: common.length }',
      '? { type: "exception", vector }',
      TRACED,
    ],
  ]),
  ...mutationsOf("src/xen/p2m.ts", "src/xen/p2m_test.ts", [
    [
      "an unmapped guest frame stays in the nested tables",
      "this.#show(guestFrame, 0n);",
      "",
      "what is unmapped is gone from the tables the processor walks",
    ],
    [
      "a protected guest frame keeps its rights",
      "this.format.page(frame * 4096, rights)",
      "this.format.page(frame * 4096, ALL)",
      "protect() changes what the tables allow",
    ],
  ]),
  ...mutationsOf("src/xen/frames.ts", "src/xen/frames_test.ts", [
    [
      "a released frame keeps its owner's bytes",
      "if (!this.#isClear(frame)) this.machine.write(frame * 4096, ZEROES);",
      "",
      "Frames hands out frames of zeroes, also ones used before",
    ],
  ]),
  ...mutationsOf("src/xen/vcpu.ts", "src/xen/vcpu_test.ts", [
    [
      "a vCPU whose turn is over has it still",
      'if (this.#state === "running") this.#enter("runnable");',
      "",
      "a vCPU's runstate says who had the processor, and accounts for all of its time",
    ],
    [
      "a pause in which no time passes is an interval",
      "if (this.#stood) this.#since = this.#accounted;",
      "this.#since = this.#accounted;",
      "a pause is offline as long as time passes in it; one in which none does is none",
    ],
  ]),
  ...mutationsOf("src/xen/domain.ts", "src/xen/domain_test.ts", [
    [
      "a domain is blocked when one of its vCPUs is",
      "return this.vcpus.every((vcpu) => vcpu.blocked || !vcpu.online || !this.#lets(vcpu));",
      "return this.vcpus.some((vcpu) => vcpu.blocked);",
      "a domain is blocked when all its vCPUs are, and one that is woken lets it run",
    ],
    [
      "the time of a domain of several vCPUs goes on in a pause",
      "if (shared) this.#setClock(this.runs || this.vcpus.some(({ running }) => running));",
      "if (shared) this.#setClock(true);",
      "with several vCPUs a domain's time is the host's while it is not paused",
    ],
  ]),
  ...mutationsOf("src/xen/hvm.ts", "src/xen/smp_test.ts", [
    ["INIT of a vCPU that waits is not taken", "if (signals.init) {", "if (false) {", STARTED],
    [
      "the task priority of another vCPU is changed amid an instruction",
      "if (loaded || !processor.running) this.ops.setCr",
      "this.ops.setCr",
      STARTED,
    ],
  ]),
  ...mutationsOf("src/xen/start_up.ts", "src/xen/smp_test.ts", [
    [
      "a start-up begins at the linear address alone",
      "selector: vector << 8, base",
      "base",
      "a vCPU begins in real mode at its start-up's page, with the registers of INIT (intel, hap)",
    ],
  ]),
  ...mutationsOf("src/xen/ioreq.ts", "src/xen/smp_test.ts", [
    [
      "all vCPUs write to the first one's local APIC",
      "p.mmioWrite(addr, size, data, this.processor)",
      "p.mmioWrite(addr, size, data, 0)",
      STARTED,
    ],
  ]),
  ...mutationsOf("src/xen/scheduler.ts", "src/xen/smp_test.ts", [
    [
      "a turn is not saved",
      "          turn && { domain: turn.vcpu.domain.id, vcpu: turn.vcpu.id, ends: turn.ends }\n",
      "          turn && null\n",
      "a run of several vCPUs repeats, saved and loaded at any place (intel, hap, on 1)",
    ],
  ]),
  ...mutationsOf("src/xen/scheduler.ts", "src/xen/domain_test.ts", [
    [
      "a domain's cap is each of its vCPUs'",
      "else allotment.usedInWindow += time;",
      "else allotment.usedInWindow += time / 2;",
      "a domain's weight is each of its vCPUs', its cap is theirs together",
    ],
  ]),
  ...mutationsOf("src/xen/host.ts", "src/xen/slices_test.ts", [
    [
      "every slice of the host's loop is a turn of the scheduler",
      "this.#ofTurn(processor) ?? this.#beginTurn(processor)",
      "this.#beginTurn(processor)",
      "so is a schedule: weights, a cap, a guest that waits (intel)",
    ],
  ]),
  ...mutationsOf("src/machine/values.ts", "src/hvm/software_events_test.ts", [
    [
      "an INT n that is delivered again is not counted",
      "cell(V.abort).eqz().and(cell(V.eventType).geU(EVENT_TYPE.softwareInterrupt))",
      "cell(V.abort).and(0)",
      "instructions that raise an event are counted once: intel, shadow, handler",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/exit.ts", "src/hvm/software_events_test.ts", [
    [
      "an INT1 whose delivery was cut short is injected as a trap",
      'code !== EXIT_CODE.taskSwitch && event.type !== "privileged-software-exception"',
      "code !== EXIT_CODE.taskSwitch",
      "instructions that raise an event are counted once: amd, shadow, handler",
    ],
  ]),
];
