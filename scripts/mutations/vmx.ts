/**
 * Mistakes in VMX as the processor has it.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const VMX = "src/machine/vmx", CHECKS = `${VMX}/checks_test.ts`, EXIT = `${VMX}/exit_test.ts`;
const OPERATIONS = `${VMX}/operations_test.ts`, HVM = "src/hvm/vmx/ops_test.ts";
const ON_CONTROLS = "vmentry() fails with error 7 for each check on the controls";
const ON_HOST = "vmentry() fails with error 8 for each check on the host state";
const ON_GUEST = "vmentry() leaves with reason 33 for each check on the guest state";
const AT_THE_EDGE = "vmentry() accepts what stands at the edge of each check";
const AGAIN = "a check that has passed is made again once its fields are written";
const SWITCHES = "entry loads the guest's registers, exit saves them and loads the host's";
const FUZZ = "random contents of control structures: vmx enters, or says why not";
const NOTES = "exits note the instruction, the event and what was being delivered";

export const VMX_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf("src/hvm/vmx/run.ts", "src/hvm/real_mode_test.ts", [[
    "emulated real mode goes on in protected mode",
    'if (hasLeft(v)) return "budget";',
    "",
    "emulated real mode ends with the instruction that sets CR0.PE",
  ]]),
  ...mutationsOf(`${VMX}/checks_controls.ts`, CHECKS, [
    [
      "VM entry: EPTP's memory type not checked",
      "type.eqz().or(type.eq(6)).and(eptp",
      "type.leU(7).and(eptp",
      ON_CONTROLS,
    ],
    [
      "VM entry: error code of an injected event not checked in real mode",
      ".and(i32(WITH_ERROR).shrU(vector.and(31))).and(real.eqz()),",
      ".and(i32(WITH_ERROR).shrU(vector.and(31))).and(1),",
      ON_CONTROLS,
    ],
    [
      "VM entry: TPR threshold may be equal to the virtual TPR",
      "threshold.gtU(vtpr),",
      "threshold.geU(vtpr),",
      AT_THE_EDGE,
    ],
  ]),
  ...mutationsOf(`${VMX}/checks_host.ts`, CHECKS, [
    [
      "VM entry: host GDTR base need not be canonical",
      `["FsBase", "GsBase", "GdtrBase", "IdtrBase", "TrBase"]`,
      `["FsBase", "GsBase", "IdtrBase", "TrBase"]`,
      ON_HOST,
    ],
    [
      "VM entry: host EFER's LMA need not fit the address-space size",
      ".or(efer.wrap().and(LMA_LME).ne(long)),",
      ".or(efer.wrap().and(0).ne(long.and(0))),",
      ON_HOST,
    ],
  ]),
  ...mutationsOf(`${VMX}/checks_guest.ts`, CHECKS, [
    [
      "VM entry: conforming code above SS's privilege",
      ".or(type.and(0xd).eq(0xd).and(dpl.gtU(ssDpl))),",
      ".or(type.and(0xd).eq(0xd).and(dpl.geU(ssDpl))),",
      AT_THE_EDGE,
    ],
    [
      "VM entry: guest CS.L and CS.D may both be set",
      "mode.ia32e.and(rights.and(0x6000).eq(0x6000)),",
      "mode.ia32e.and(rights.and(0x6000).eq(0x6001)),",
      ON_GUEST,
    ],
    [
      "VM entry: segment limit against granularity turned around",
      "limit.shrU(20).nez().and(g.eqz())",
      "limit.shrU(20).nez().and(g.nez())",
      ON_GUEST,
    ],
    [
      "VM entry: guest FS base need not be canonical",
      `if (s === "Fs" || s === "Gs") canonical(`,
      `if (s === "Gs") canonical(`,
      ON_GUEST,
    ],
    [
      "VM entry: STI shadow allowed with IF clear",
      "blocked.and(sti).nez().and(rflags.wrap().and(IF).eqz()),",
      "blocked.and(sti).nez().and(rflags.wrap().and(TF).nez()),",
      ON_GUEST,
    ],
    [
      "VM entry: VMCS link pointer may be the current VMCS",
      ".or(link.eq(cell64(CPU.vmcsPointer))));",
      ".or(link.eq(-2)));",
      ON_GUEST,
    ],
    [
      "VM entry: PDPTEs' reserved bits not checked",
      "entry.and(PDPTE_RESERVED).nez().or(tooWide(entry));",
      "tooWide(entry);",
      ON_GUEST,
    ],
  ]),
  ...mutationsOf(`${VMX}/operations.ts`, OPERATIONS, [
    [
      "VMWRITE writes read-only fields",
      "f.if(entry.and(FIELD_ENTRY.readOnly), () => fail(f, VM_ERROR.readOnlyField, field.zext()));",
      "",
      "VMWRITE refuses exit information with error 13, unknown fields have error 12",
    ],
    [
      "VMWRITE stores more than the 16 bits of a selector",
      "f.if(width.eqz(), () => f.set(low, low.and(0xffff)));",
      "",
      "VMREAD gives back what VMWRITE wrote, for every field, and no field touches another",
    ],
    [
      "INVVPID takes an address that is not canonical",
      "const canonical = linear.shl(16).shrS(16).eq(linear);",
      "const canonical = linear.eq(linear);",
      "INVEPT and INVVPID know their types",
    ],
  ]),
  ...mutationsOf(`${VMX}/operations.ts`, CHECKS, [
    [
      "a check that has passed is not made again when RFLAGS.VM changes",
      "f.if(rflags.and(low.xor(old).shrU(17)), () => passed(i32(GROUP.guest)));",
      "",
      AGAIN,
    ],
  ]),
  ...mutationsOf(`${VMX}/entry.ts`, EXIT, [
    [
      "VM entry: the TSC offset with its sign turned",
      `vmcs.get("tscOffset").when(`,
      `i64(0).sub(vmcs.get("tscOffset")).when(`,
      "TSC offset is in force in the guest only",
    ],
    [
      "VM entry does not load PAT",
      `f.if(entry.and(ENTRY_CONTROL.loadPat), () => setCell64(f, CPU.pat, vmcs.get("guestPat")));`,
      "",
      "PAT, EFER, debug controls and the timer are switched by their controls alone",
    ],
    [
      "VM entry drops no translations",
      `f.call("vmxContextSwitch");`,
      "",
      "the TLBs are emptied only when the translation context changes",
    ],
    [
      "VM entry reads the PDPTEs from memory though EPT is on",
      "f.if(ept.eqz(), () => f.set(at,",
      "f.if(ept.eqz().or(1), () => f.set(at,",
      "PAE PDPTEs come from memory without EPT, from the VMCS with it",
    ],
    [
      "VM entry forgets the guest's interruptibility",
      `setCell(f, CPU.interruptibility, vmcs.low("guestInterruptibility"));`,
      "",
      SWITCHES,
    ],
  ]),
  ...mutationsOf(`${VMX}/exit.ts`, EXIT, [
    [
      "an EPT violation of an IRET does not tell of the NMIs it has unblocked",
      "cell64(V.exitQualification).or(EVENT.nmiUnblocking)",
      "cell64(V.exitQualification)",
      "NMI unblocking due to IRET is noted by fault and EPT violation, and by nothing else",
    ],
    [
      "a fault of an IRET does not tell of the NMIs it has unblocked",
      "event.or(EVENT.nmiUnblocking)",
      "event",
      "NMI unblocking due to IRET is noted by fault and EPT violation, and by nothing else",
    ],
    [
      "VM exit saves no interruptibility",
      `vmcs.set("guestInterruptibility", cell(CPU.interruptibility).and(0xf));`,
      "",
      SWITCHES,
    ],
    [
      "VM exit saves no CR3",
      `  ["guestCr3", "cr3"],\n`,
      "",
      SWITCHES,
    ],
    [
      "VM exit loses the event that was being delivered",
      `vmcs.set("idtVectoringInformation", vectoring);`,
      `vmcs.set("idtVectoringInformation", 0);`,
      NOTES,
    ],
    [
      "VM exit leaves the guest's EFER in the host",
      "const efer = cell64(CPU.efer).and(~LMA_LME)",
      "const efer = cell64(CPU.efer).or(0x1000)",
      SWITCHES,
    ],
  ]),
  ...mutationsOf(`${VMX}/context.ts`, EXIT, [
    [
      "translations kept across a change of CR0.WP",
      "cell64(CPU.cr0).and(BigInt(CR0.PG) | BigInt(CR0.WP))",
      "cell64(CPU.cr0).and(0x8000_0000n)",
      "the TLBs are emptied only when the translation context changes",
    ],
    [
      "translations kept across a change of CR3",
      ".and(cell64(VMXC.contextCr3).eq(cell64(CPU.cr3)))",
      "",
      "the TLBs are emptied only when the translation context changes",
    ],
  ]),
  ...mutationsOf(`${VMX}/timer.ts`, EXIT, [
    [
      "the preemption timer counts too fast",
      "value.zext().shl(PREEMPTION_RATE)",
      "value.zext().shl(PREEMPTION_RATE - 1)",
      "the preemption timer counts instructions and is saved",
    ],
  ]),
  ...mutationsOf(`${VMX}/timer.ts`, HVM, [
    [
      "the interrupt window opens under an STI shadow",
      "const open = blocked.and(3).eqz()",
      "const open = blocked.and(2).eqz()",
      "VMX: enter() leaves by an interrupt window after STI",
    ],
  ]),
  ...mutationsOf(`${VMX}/msr_areas.ts`, EXIT, [
    [
      "MSR areas may load FS.base",
      "f.if(base.or(index.eq(0x9b)), () => f.return(i32(1)));",
      "f.if(index.eq(0x9b), () => f.return(i32(1)));",
      "an MSR that cannot be loaded fails the entry with its number",
    ],
  ]),
  ...mutationsOf(`${VMX}/intercept.ts`, HVM, [
    [
      "HLT never leaves",
      "hlt: onPrimary(PRIMARY.hlt, EXIT_REASON.hlt),",
      "hlt: never,",
      "VMX: enter() leaves by HLT",
    ],
    [
      "I/O bitmap: only the first port of a wide access counts",
      "f.while(() => i.leU(last).and(exit.eqz()), () => {",
      "f.while(() => i.leU(port).and(exit.eqz()), () => {",
      "VMX: enter() leaves by OUT to DX",
    ],
    [
      "MSR bitmap: reads and writes exchanged",
      "const quarter = high.shl(13).or(write.wrap().and(1).shl(14));",
      "const quarter = high.shl(13).or(write.wrap().xor(1).and(1).shl(14));",
      "VMX: enter() leaves by RDMSR",
    ],
    [
      "CR0 bits of the host may be changed by the guest",
      "f.if(differs.nez(), () => leave(f, EXIT_REASON.cr, qualification));",
      "",
      "VMX: enter() leaves by MOV to CR0 of a bit the host owns",
    ],
    [
      "the guest reads the host's bits of CR4",
      "f.set(value, value.and(mask.not()).or(shadow.and(mask)));",
      "",
      "MOV from CR0 and CR4 shows the guest its own bits",
    ],
  ]),
  ...mutationsOf(`${VMX}/intercept.ts`, EXIT, [
    [
      "page-fault mask and match not turned around",
      'f.set(exit, exit.xor(code.ne(vmcs.low("pageFaultErrorCodeMatch"))));',
      'f.set(exit, exit.and(code.eq(vmcs.low("pageFaultErrorCodeMatch"))));',
      "page-fault mask and match turn the bitmap around where they do not match",
    ],
  ]),
  ...mutationsOf(`${VMX}/layout.ts`, "tests/fuzz/fuzz_test.ts", [
    [
      "the guest's checks are not made again when the entry controls are written",
      "entryControls: ALL,",
      "entryControls: GROUP.controls | GROUP.host | GROUP.light,",
      FUZZ,
    ],
    [
      "pending debug exceptions count as checked",
      "guestPendingDebug: GROUP.light,",
      "guestPendingDebug: 0,",
      FUZZ,
    ],
  ]),
];
