/**
 * What of the ABI is x86's own: contexts, descriptor tables, areas of the address space.
 * Sources: Xen public/arch-x86/xen.h, xen-x86_32.h and xen-x86_64.h.
 *
 * @module
 */
import { array, byWidth, group, only, struct } from "../layout.ts";

/** vCPUs whose vcpu_info stands in shared_info; the others register theirs. */
export const XEN_LEGACY_MAX_VCPUS = 32;

/** Xen's own part of a PV guest's GDT begins here. */
export const FIRST_RESERVED_GDT = { PAGE: 14, BYTE: 14 * 4096, ENTRY: 14 * 512 } as const;

/** Selectors of flat segments that every PV GDT has, by the guest's width. */
export const FLAT = {
  32: {
    RING1_CS: 0xe019,
    RING1_DS: 0xe021,
    RING1_SS: 0xe021,
    RING3_CS: 0xe02b,
    RING3_DS: 0xe033,
    RING3_SS: 0xe033,
  },
  64: {
    RING3_CS32: 0xe023,
    RING3_CS64: 0xe033,
    RING3_DS32: 0xe02b,
    RING3_DS64: 0,
    RING3_SS32: 0xe02b,
    RING3_SS64: 0xe02b,
  },
} as const;

/** Linear addresses that PV guests leave to Xen; the machine-to-physical table is at their start. */
export const XEN_VIRT = {
  32: {
    HYPERVISOR_VIRT_START: 0xf580_0000n,
    MACH2PHYS_VIRT_START: 0xf580_0000n,
    MACH2PHYS_VIRT_END: 0xf680_0000n,
  },
  64: {
    HYPERVISOR_VIRT_START: 0xffff_8000_0000_0000n,
    HYPERVISOR_VIRT_END: 0xffff_8800_0000_0000n,
    MACH2PHYS_VIRT_START: 0xffff_8000_0000_0000n,
    MACH2PHYS_VIRT_END: 0xffff_8040_0000_0000n,
  },
} as const;

/** Which base set_segment_base sets (64-bit guests). */
export const SEGBASE = { FS: 0, GS_USER: 1, GS_KERNEL: 2, GS_USER_SEL: 3 } as const;

/** Flags of vcpu_guest_context. */
export const VGCF = {
  i387_valid: 1 << 0,
  in_kernel: 1 << 2,
  failsafe_disables_events: 1 << 3,
  syscall_disables_events: 1 << 4,
  online: 1 << 5,
} as const;
/** Flag of iret_context: the guest came by SYSCALL, RCX and R11 are not restored. */
export const VGCF_in_syscall = 1 << 8;

/** Before an instruction (CPUID): UD2 and "xen"; Xen emulates what follows. */
export const XEN_EMULATE_PREFIX = [0x0f, 0x0b, 0x78, 0x65, 0x6e] as const;

/** A byte written to this port goes to Xen's console (HVM). */
export const XEN_HVM_DEBUGCONS_IOPORT = 0xe9;

/** An entry of the virtual IDT; flags: DPL in bits 1:0, bit 2 masks events. The list ends at address 0. */
export const TRAP_INFO = struct("trap_info", {
  vector: "u8",
  flags: "u8",
  cs: "u16",
  address: "ulong",
});

/** Where Xen enters a guest. */
export const XEN_CALLBACK = byWidth(struct("xen_callback", { cs: "ulong", eip: "ulong" }), "ulong");

const userRegs32 = struct("cpu_user_regs", {
  ebx: "u32",
  ecx: "u32",
  edx: "u32",
  esi: "u32",
  edi: "u32",
  ebp: "u32",
  eax: "u32",
  error_code: "u16",
  entry_vector: "u16",
  eip: "u32",
  cs: "u16",
  saved_upcall_mask: "u8",
  _pad0: "u8",
  eflags: "u32",
  esp: "u32",
  ss: "u16",
  _pad1: "u16",
  es: "u16",
  _pad2: "u16",
  ds: "u16",
  _pad3: "u16",
  fs: "u16",
  _pad4: "u16",
  gs: "u16",
  _pad5: "u16",
});
const userRegs64 = struct("cpu_user_regs", {
  r15: "u64",
  r14: "u64",
  r13: "u64",
  r12: "u64",
  rbp: "u64",
  rbx: "u64",
  r11: "u64",
  r10: "u64",
  r9: "u64",
  r8: "u64",
  rax: "u64",
  rcx: "u64",
  rdx: "u64",
  rsi: "u64",
  rdi: "u64",
  error_code: "u32",
  entry_vector: "u32",
  rip: "u64",
  cs: "u16",
  _pad0: array("u16", 1),
  saved_upcall_mask: "u8",
  _pad1: array("u8", 3),
  rflags: "u64",
  rsp: "u64",
  ss: "u16",
  _pad2: array("u16", 3),
  es: "u16",
  _pad3: array("u16", 3),
  ds: "u16",
  _pad4: array("u16", 3),
  fs: "u16",
  _pad5: array("u16", 3),
  gs: "u16",
  _pad6: array("u16", 3),
});

/** A PV vCPU's registers, which start one and which tools see. */
export const VCPU_GUEST_CONTEXT = struct("vcpu_guest_context", {
  fpu_ctxt: group({ x: array("u8", 512) }),
  flags: "ulong",
  user_regs: byWidth(userRegs32, userRegs64),
  trap_ctxt: array(TRAP_INFO, 256),
  ldt_base: "ulong",
  ldt_ents: "ulong",
  gdt_frames: array("ulong", 16),
  gdt_ents: "ulong",
  kernel_ss: "ulong",
  kernel_sp: "ulong",
  /** CR1 is the root of user mode (64-bit). */
  ctrlreg: array("ulong", 8),
  debugreg: array("ulong", 8),
  event_callback_cs: only(32, "ulong"),
  event_callback_eip: "ulong",
  failsafe_callback_cs: only(32, "ulong"),
  failsafe_callback_eip: "ulong",
  syscall_callback_eip: only(64, "ulong"),
  vm_assist: "ulong",
  fs_base: only(64, "u64"),
  gs_base_kernel: only(64, "u64"),
  gs_base_user: only(64, "u64"),
});

/** What the hypercall iret finds on the kernel's stack (64-bit). */
export const IRET_CONTEXT = struct("iret_context", {
  rax: "u64",
  r11: "u64",
  rcx: "u64",
  flags: "u64",
  rip: "u64",
  cs: "u64",
  rflags: "u64",
  rsp: "u64",
  ss: "u64",
});

export const ARCH_SHARED_INFO = struct("arch_shared_info", {
  max_pfn: "ulong",
  pfn_to_mfn_frame_list_list: "ulong",
  nmi_reason: "ulong",
  /** 0: the next two say nothing. */
  p2m_cr3: "ulong",
  p2m_vaddr: "ulong",
  /** Odd while the guest changes its list. */
  p2m_generation: "ulong",
  wc_sec_hi: only(32, "u32"),
});

export const ARCH_VCPU_INFO = struct("arch_vcpu_info", {
  cr2: "ulong",
  pad: byWidth(array("ulong", 5), "ulong"),
});

export const XEN_CPUID_LEAF = struct("xen_cpuid_leaf", {
  leaf: "u32",
  subleaf: "u32",
  a: "u32",
  b: "u32",
  c: "u32",
  d: "u32",
});
export const XEN_MSR_ENTRY = struct("xen_msr_entry", { idx: "u32", flags: "u32", val: "u64" });
