/**
 * Mistakes in SVM as the processor has it, and in the hypervisor's table over it.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const SVM = "src/machine/svm", CHECKS = `${SVM}/checks_test.ts`, EVENTS = `${SVM}/events_test.ts`;
const STATE = `${SVM}/state_test.ts`, EXIT = `${SVM}/exit_test.ts`;
const INTERCEPTS = `${SVM}/intercept_test.ts`, NESTED = `${SVM}/nested_test.ts`;
const HVM = "src/hvm/svm/ops_test.ts";

const REFUSES = "VMRUN refuses a VMCB by the check that it breaks, and loads nothing of it";
const INJECTS = "EVENTINJ delivers its event before the first instruction";
const DELIVERY = "an exit in the course of a delivery tells the event in EXITINTINFO";
const DEBUG = "a debug exception has written DR6 and DR7 when it is intercepted";
const VIRTUAL = "a virtual interrupt waits for IF, the shadow and its priority";
const CR8 = "CR8 is the virtual TPR with V_INTR_MASKING, and both without";
const BITS = "each instruction intercept makes its instruction leave, and no other bit does";
const TOLD = "control and debug registers, exceptions, ports, MSRs: information by the manual";
const RUNS_ON = "what is not intercepted runs on";
const TSC = "TSC offset and ratio are in force in the guest alone";
const CPL = "privilege comes from the CPL field, but not in real and virtual-8086 mode";
const MOVES = "VMLOAD and VMSAVE move what VMRUN does not";
const TLBS = "the TLBs are emptied only when the translation context changes";
const SAVES = "#VMEXIT saves whatever of its state the guest has changed";
const NPT = "nested paging translates, and sets accessed and dirty bits as the guest goes";
const FAULTS = "a nested page fault tells its cause and the guest-physical address";
const WALKS = "the guest's page walk writes: its tables fault as such";

export const SVM_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf(`${SVM}/checks.ts`, CHECKS, [
    [
      "VMRUN: CR0.NW with CD clear allowed",
      "holds(FORBIDDEN.writeThroughWithoutDisable, { now }),",
      "i32(0),",
      REFUSES,
    ],
    [
      "VMRUN: long mode without PAE allowed",
      "holds(FORBIDDEN.longWithoutPae, words),",
      "i32(0),",
      REFUSES,
    ],
    ["VMRUN: ASID 0 allowed", `vmcb.get("asid").eqz());`, `vmcb.get("asid").eq(2));`, REFUSES],
    [
      "VMRUN: only the beginning of a permission map checked",
      ".or(tooWide(base.add(size - 1))),",
      ",",
      REFUSES,
    ],
    [
      "VMRUN: type 1 of an event to be injected allowed",
      "type.eq(1).or(type.gtU(EVENT_TYPE.softwareInterrupt))",
      "type.gtU(EVENT_TYPE.softwareInterrupt)",
      REFUSES,
    ],
    [
      "VMRUN: an NMI injected as an exception",
      "vector !== VECTOR.NMI && vector !== VECTOR.VE",
      "vector !== VECTOR.VE",
      REFUSES,
    ],
    ["VMRUN: G_PAT not checked", "patInvalid(f, pat), pat", "patInvalid(f, root), pat", REFUSES],
  ]),
  ...mutationsOf(`${SVM}/entry.ts`, STATE, [
    [
      "VMRUN: TSC offset not loaded",
      `setCell64(f, CPU.tscOffset, vmcb.get("tscOffset"));`,
      "setCell64(f, CPU.tscOffset, 0);",
      TSC,
    ],
    [
      "VMRUN: TSC ratio not in force",
      "setCell64(f, V.tscRatio, ratio.when(ratio.ne(1n << 32n), i64(0)));",
      "setCell64(f, V.tscRatio, 0);",
      TSC,
    ],
    [
      "VMRUN: CPL from SS's attributes",
      "setCell(f, ss, cell(ss).and(~0x60).or(cpl.shl(5)));",
      "setCell(f, ss, cell(ss));",
      CPL,
    ],
    [
      "VMRUN: TLB control not looked at",
      `f.if(vmcb.get("tlbControl"), () => {`,
      "f.if(i32(0), () => {",
      TLBS,
    ],
    [
      "VMRUN: debug controls not loaded with LBR virtualization",
      `setCell64(f, CPU.debugctl, vmcb.get("debugctl").and(3));`,
      "",
      "debug controls and branch records are the guest's with LBR virtualization alone",
    ],
  ]),
  ...mutationsOf(`${SVM}/entry.ts`, EXIT, [
    [
      "VMRUN does not save the host's CR4",
      "for (const name of HOST_REGISTERS) {",
      `for (const name of HOST_REGISTERS.filter((x) => x !== "cr4")) {`,
      "VMRUN runs a guest until its budget ends, and #VMEXIT saves it",
    ],
    [
      "VMRUN: CR2 not loaded",
      `for (const name of ["cr2", "cr3", "cr4", "rip", "rsp", "rax"] as const) {`,
      `for (const name of ["cr3", "cr4", "rip", "rsp", "rax"] as const) {`,
      "VMRUN loads every field of the guest's state",
    ],
  ]),
  ...mutationsOf(`${SVM}/entry.ts`, EVENTS, [
    [
      "VMRUN: DR7 not loaded",
      `setCell64(f, CPU.dr7, vmcb.get("dr7").and(0xffff_23ff).or(DR7.fixed));`,
      "setCell64(f, CPU.dr7, 0x400);",
      DEBUG,
    ],
    [
      "VMRUN: CR8 keeps the host's priority with V_INTR_MASKING",
      "setCell64(f, CPU.cr8, virtual.and(VIRTUAL_INTERRUPT.tpr).zext());",
      "",
      CR8,
    ],
    [
      "VMRUN: interrupt shadow not loaded",
      "setCell(f, CPU.interruptibility, shadow.or(masked));",
      "setCell(f, CPU.interruptibility, masked);",
      VIRTUAL,
    ],
    [
      "an injected exception loses its error code",
      "exception.and(info.shrU(11)).and(1));",
      "exception.and(0));",
      INJECTS,
    ],
    [
      "an injected event is intercepted",
      "setCell(f, SVMC.injecting, 1);",
      "setCell(f, SVMC.injecting, 0);",
      INJECTS,
    ],
    [
      "an injected software interrupt returns to itself",
      "setCell(f, V.length, length.when(software, i32(0)));",
      "setCell(f, V.length, 0);",
      INJECTS,
    ],
    [
      "an injected #DB writes DR6",
      "for (const [at, value] of kept) setCell64(f, at, value);",
      "",
      "what is injected is CR2's and DR6's own business",
    ],
  ]),
  ...mutationsOf(`${SVM}/entry.ts`, NESTED, [
    [
      "PDPTEs are registers with nested paging too",
      "setCell(f, V.pdptesInMemory, nested);",
      "setCell(f, V.pdptesInMemory, 0);",
      "a PAE guest's PDPTEs are read in memory at each walk",
    ],
  ]),
  ...mutationsOf(`${SVM}/exit.ts`, EXIT, [
    ["#VMEXIT does not save CR2", `"cr0", "cr2", "cr3"`, `"cr0", "cr3"`, SAVES],
    ["#VMEXIT does not save DR6", `"cr4", "dr6", "dr7"`, `"cr4", "dr7"`, SAVES],
    ["#VMEXIT does not save ES", `["es", "cs", "ss", "ds"]`, `["cs", "ss", "ds"]`, SAVES],
    [
      "#VMEXIT does not save IDTR",
      `for (const name of ["gdtr", "idtr"] as const) {`,
      `for (const name of ["gdtr"] as const) {`,
      SAVES,
    ],
    [
      "#VMEXIT leaves GIF set",
      "setCell(f, CPU.gif, 0);",
      "setCell(f, CPU.gif, 1);",
      "VMRUN runs a guest until its budget ends, and #VMEXIT saves it",
    ],
  ]),
  ...mutationsOf(`${SVM}/exit.ts`, STATE, [
    [
      "#VMEXIT loses the shadow of MOV SS",
      "cell(CPU.interruptibility).and(SHADOW).nez().zext()",
      "cell(CPU.interruptibility).and(1).nez().zext()",
      "a budget ends at exactly its instruction, wherever that is",
    ],
    [
      "#VMEXIT: half of the CPL saved",
      `cell(CPU["ss.attributes"]).shrU(5).and(3)`,
      `cell(CPU["ss.attributes"]).shrU(5).and(1)`,
      CPL,
    ],
    [
      "#VMEXIT: the TSC offset stays in force",
      "setCell64(f, CPU.tscOffset, 0);",
      "",
      TSC,
    ],
  ]),
  ...mutationsOf(`${SVM}/exit.ts`, EVENTS, [
    ["#VMEXIT does not load the host's CR8", `setCell64(f, CPU.cr8, saved("cr8"));`, "", CR8],
    ["#VMEXIT leaves EVENTINJ valid", `vmcb.set("eventInjection", i64(0));`, "", INJECTS],
    ["EXITINTINFO lost", `vmcb.set("exitIntInfo", info);`, "", DELIVERY],
    [
      "EXITINTINFO without its error code",
      "cell(V.vectoringError).when(vectoring.and(0x800), i32(0))",
      "cell(V.vectoringError).when(vectoring.and(0), i32(0))",
      DELIVERY,
    ],
    [
      "nRIP of a software interrupt that was cut short lost",
      "f.set(length, cell(V.vectoringLength))",
      "f.set(length, i32(0))",
      DELIVERY,
    ],
  ]),
  ...mutationsOf(`${SVM}/intercept.ts`, INTERCEPTS, [
    [
      "EXITINFO1 of ports without REP",
      "add(q.and(0x20), IOIO.rep);",
      "add(q.and(0), IOIO.rep);",
      TOLD,
    ],
    [
      "EXITINFO1 of OUTS: wrong segment",
      "divU(SEGMENT_SIZE).and(7)",
      "divU(SEGMENT_SIZE).and(1)",
      TOLD,
    ],
    [
      "IOPM: only the first port of a wide access looked at",
      "i.ltU(size).and(exit.eqz())",
      "i.ltU(1).and(exit.eqz())",
      TOLD,
    ],
    [
      "MSRPM: writes by the bit of reads",
      ".shl(1).or(write.wrap().and(1));",
      ".shl(1);",
      TOLD,
    ],
    ["MSRPM: ranges too near", "offset.add(0x2000 * n)", "offset.add(0x1000 * n)", TOLD],
    [
      "selective CR0 intercept leaves for MP",
      "value.xor(cell64(CPU.cr0)).and(~0xan)",
      "value.xor(cell64(CPU.cr0)).and(~0x8n)",
      RUNS_ON,
    ],
    [
      "intercept of INVPCID lost",
      `invpcid: plain(on("intercepts3", "invpcid")),`,
      "invpcid: never,",
      BITS,
    ],
    [
      "RDTSCP intercepted as RDTSC",
      `on("intercepts2", "rdtscp")(f, vmcb), () => {`,
      `on("intercepts1", "rdtsc")(f, vmcb), () => {`,
      BITS,
    ],
    [
      "nRIP of intercepted instructions lost",
      "setCell(f, SVMC.length, cell(V.length));",
      "",
      BITS,
    ],
  ]),
  ...mutationsOf(`${SVM}/intercept.ts`, EVENTS, [
    [
      "an intercepted #DB has not written DR6",
      "setCell64(f, CPU.dr6, cell64(CPU.dr6).and(~BigInt(DR6.breakpoints)).or(pending));",
      "",
      DEBUG,
    ],
    [
      "EXITINFO2 of #PF lost",
      "f.set(info2, cell64(V.faultAddress));",
      "",
      "a page fault leaves with code and address before CR2 is written",
    ],
    [
      "EXITINFO2 of a task switch without JMP",
      "f.set(info, info.or(TASK_SWITCH.jump))",
      "{}",
      "a task switch tells selector, source and error code",
    ],
  ]),
  ...mutationsOf(`${SVM}/intercept.ts`, `${SVM}/instructions_test.ts`, [
    [
      "host interrupts by the guest's IF with V_INTR_MASKING",
      "intercepted.when(host.and(RFLAGS.IF), i32(2))",
      "intercepted.when(cell(CPU.rflags).and(0x200), i32(2))",
      "with V_INTR_MASKING interrupts wait for the IF that the host had at VMRUN",
    ],
  ]),
  ...mutationsOf(`${SVM}/boundary.ts`, EVENTS, [
    [
      "V_IRQ stays after its delivery",
      "word.and(~VIRTUAL_INTERRUPT.irq)",
      "word",
      VIRTUAL,
    ],
    [
      "V_IGN_TPR ignored",
      ".or(word.and(VIRTUAL_INTERRUPT.ignoreTpr).nez())",
      "",
      VIRTUAL,
    ],
    [
      "V_INTR_PRIO equal to V_TPR is enough",
      "priority.gtU(virtualTpr(word))",
      "priority.geU(virtualTpr(word))",
      VIRTUAL,
    ],
    [
      "the V_IRQ window does not wait for the shadow",
      ".and(\n      cell(CPU.interruptibility).and(SHADOW).eqz(),\n    )",
      "",
      VIRTUAL,
    ],
  ]),
  ...mutationsOf(`${SVM}/nested.ts`, NESTED, [
    [
      "nested paging: user bit ignored",
      "const missing = rights.xor(U).and(U).or(",
      "const missing = i32(0).or(",
      FAULTS,
    ],
    [
      "nested paging: read-only ignored",
      "wanted.and(rights.not()).and(W)",
      "wanted.and(rights.not()).and(0)",
      FAULTS,
    ],
    [
      "nested paging: NX ignored",
      ".or(wanted.and(FETCH).nez().and(noExecute));",
      ";",
      FAULTS,
    ],
    [
      "nested paging: accessed bits not set",
      "setAccessed(f, wanted, steps, wide, SVMC.nestedEntries);",
      "",
      NPT,
    ],
    ["nested paging: dirty bits not set", "setAccessed(f, wanted,", "setAccessed(f, probe,", NPT],
    [
      "nested paging: the guest's walks read",
      "const walk = i32(W).when(",
      "const walk = i32(0).when(",
      WALKS,
    ],
    [
      "EXITINFO1 of NPF: walks as final",
      "i64(NPF.walk).when(table, i64(NPF.final))",
      "i64(NPF.final)",
      WALKS,
    ],
  ]),
  ...mutationsOf(`${SVM}/operations.ts`, STATE, [
    ["VMLOAD and VMSAVE forget SFMASK", `  ["sfmask", false],\n`, "", MOVES],
    ["VMLOAD and VMSAVE forget KernelGsBase", `  ["kernelGsBase", true],\n`, "", MOVES],
    ["VMLOAD and VMSAVE forget LDTR", `["fs", "gs", "ldtr", "tr"]`, `["fs", "gs", "tr"]`, MOVES],
  ]),
  ...mutationsOf(`${SVM}/context.ts`, STATE, [
    [
      "TLBs kept across another nested root",
      ".and(cell64(SVMC.contextRoot).eq(cell64(V.eptp)))",
      "",
      TLBS,
    ],
    [
      "TLBs kept across another CR3",
      "\n        .and(cell64(SVMC.contextCr3).eq(cell64(CPU.cr3)))",
      "",
      TLBS,
    ],
    [
      "TLBs kept across another paging mode",
      "\n        .and(cell64(SVMC.contextMode).eq(mode())),",
      ",",
      TLBS,
    ],
  ]),
  ...mutationsOf("src/hvm/svm/exit.ts", HVM, [
    [
      "SVM: an event whose delivery was cut short is lost",
      "v.write(F.eventInjection, info);",
      "",
      "SVM: a nested page fault in the course of a delivery queues the event again",
    ],
    [
      "SVM: a queued event loses its error code",
      "v.write(F.eventInjection + 4, error);",
      "",
      "SVM: an exception in the course of a delivery is tested before it becomes a double fault",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/cpu.ts", HVM, [
    [
      "the switch of SVM vCPUs forgets VMSAVE",
      "    v.lazy(false);\n    // As the next load does",
      "    // As the next load does",
      "SVM: what a guest writes into MSRs that hardware does not switch stays its own",
    ],
    [
      "a written field keeps its clean bit",
      "this.words[F.cleanBits >> 2] &= ~traits;",
      "",
      "SVM: a field that is written loses its clean bit, and a flush its translations",
    ],
    [
      "TLB control lost",
      "this.write8(F.tlbControl, TLB_CONTROL.guest);",
      "",
      "SVM: a field that is written loses its clean bit, and a flush its translations",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/controls.ts", HVM, [
    [
      "SVM: the interrupt window waits for its priority",
      "irq | priority | ignoreTpr, on",
      "irq, on",
      "SVM: enter() leaves by an interrupt window after STI",
    ],
    [
      "SVM: accesses around the end of the ports do not leave",
      "map[0x2000] = 7;",
      "",
      "SVM: enter() leaves by OUT around the end of the ports",
    ],
    [
      "SVM: a guest reads EFER.SVME",
      "[...numbers, MSR.EFER, MSR.PAT]",
      "[...numbers, MSR.PAT]",
      "SVM: enter() leaves by RDMSR of EFER, whatever is asked for",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/ops.ts", HVM, [
    [
      "SVM: the NMI window opens before IRET",
      "v.write(F.interruptShadow, v.words[F.interruptShadow >> 2] | INTERRUPT_SHADOW);",
      "",
      "SVM: IRET ends an NMI, and the window opens after it, not before",
    ],
    [
      "SVM: CR2 not written for a page fault that nobody asked for",
      "v.write64(F.cr2, wideToBigInt(exit.qualification));",
      "",
      "SVM: a page fault that does not match is the guest's alone",
    ],
  ]),
  ...mutationsOf(`${SVM}/stub.ts`, HVM, [
    [
      "SVM: the shadow outlives an instruction that the hypervisor completes",
      `vmcb.set("interruptShadow", i64(0));`,
      "",
      "SVM: advance() goes past the instruction and ends shadows",
    ],
  ]),
];
