/**
 * The heart of the ABI: shared structures, virtual interrupts, numbers of domains, commands of the calls
 * that have no header of their own. The table of hypercalls is in hypercalls.ts.
 * Source: Xen public/xen.h.
 *
 * @module
 */
import { array, group, only, struct, union } from "../layout.ts";
import { ARCH_SHARED_INFO, ARCH_VCPU_INFO, XEN_LEGACY_MAX_VCPUS } from "./arch_x86.ts";

/** Virtual interrupts. */
export const VIRQ = {
  TIMER: 0,
  DEBUG: 1,
  CONSOLE: 2,
  DOM_EXC: 3,
  TBUF: 4,
  DEBUGGER: 6,
  XENOPROF: 7,
  CON_RING: 8,
  PCPU_STATE: 9,
  MEM_EVENT: 10,
  ARGO: 11,
  ENOMEM: 12,
  XENPMU: 13,
  ARCH_0: 16,
  ARCH_1: 17,
  ARCH_2: 18,
  ARCH_3: 19,
  ARCH_4: 20,
  ARCH_5: 21,
  ARCH_6: 22,
  ARCH_7: 23,
} as const;
/** A virtual interrupt's name. */
export type VirqName = keyof typeof VIRQ;
export const NR_VIRQS = 24;
/** Those that each vCPU binds for itself; the others are the domain's, first at vCPU 0. */
export const VCPU_VIRQS: readonly number[] = [VIRQ.TIMER, VIRQ.DEBUG, VIRQ.XENOPROF, VIRQ.XENPMU];

/** Numbers that stand for no ordinary domain. */
export const DOMID = {
  FIRST_RESERVED: 0x7ff0,
  /** The caller. */
  SELF: 0x7ff0,
  IO: 0x7ff1,
  XEN: 0x7ff2,
  COW: 0x7ff3,
  INVALID: 0x7ff4,
  IDLE: 0x7fff,
  MASK: 0x7fff,
} as const;

/** Bits 1:0 of mmu_update.ptr: what is done with val. */
export const MMU = {
  NORMAL_PT_UPDATE: 0,
  MACHPHYS_UPDATE: 1,
  PT_UPDATE_PRESERVE_AD: 2,
  PT_UPDATE_NO_TRANSLATE: 3,
} as const;
export const MMU_UPDATE = struct("mmu_update", { ptr: "u64", val: "u64" });

/** mmuext_op.cmd. */
export const MMUEXT = {
  PIN_L1_TABLE: 0,
  PIN_L2_TABLE: 1,
  PIN_L3_TABLE: 2,
  PIN_L4_TABLE: 3,
  UNPIN_TABLE: 4,
  NEW_BASEPTR: 5,
  TLB_FLUSH_LOCAL: 6,
  INVLPG_LOCAL: 7,
  TLB_FLUSH_MULTI: 8,
  INVLPG_MULTI: 9,
  TLB_FLUSH_ALL: 10,
  INVLPG_ALL: 11,
  FLUSH_CACHE: 12,
  SET_LDT: 13,
  NEW_USER_BASEPTR: 15,
  CLEAR_PAGE: 16,
  COPY_PAGE: 17,
  FLUSH_CACHE_GLOBAL: 18,
  MARK_SUPER: 19,
  UNMARK_SUPER: 20,
} as const;
export const MMUEXT_OP = struct("mmuext_op", {
  cmd: "u32",
  arg1: union({ mfn: "ulong", linear_addr: "ulong" }),
  arg2: union({ nr_ents: "u32", vcpumask: "handle", src_mfn: "ulong" }),
});

/** Flags of update_va_mapping; with a flush and without ALL, the rest is the address of a vCPU bitmap. */
export const UVMF = {
  NONE: 0,
  TLB_FLUSH: 1,
  INVLPG: 2,
  FLUSHTYPE_MASK: 3,
  MULTI: 0,
  LOCAL: 0,
  ALL: 4,
} as const;

/** Commands of console_io. */
export const CONSOLEIO = { write: 0, read: 1 } as const;

/** Commands of vm_assist. */
export const VMASST_CMD = { enable: 0, disable: 1 } as const;
/** What vm_assist switches. */
export const VMASST_TYPE = {
  "4gb_segments": 0,
  "4gb_segments_notify": 1,
  writable_pagetables: 2,
  pae_extended_cr3: 3,
  architectural_iopl: 4,
  runstate_update_flag: 5,
  m2p_strict: 32,
} as const;

export const MULTICALL_ENTRY = struct("multicall_entry", {
  op: "ulong",
  result: "ulong",
  args: array("ulong", 6),
});

/** vcpu_time_info.flags. */
export const XEN_PVCLOCK = { TSC_STABLE_BIT: 1 << 0, GUEST_STOPPED: 1 << 1 } as const;

/**
 * Time of a vCPU: system_time + (((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul >> 32)
 * nanoseconds. `version` is odd while Xen writes.
 */
export const VCPU_TIME_INFO = struct("vcpu_time_info", {
  version: "u32",
  pad0: "u32",
  tsc_timestamp: "u64",
  system_time: "u64",
  tsc_to_system_mul: "u32",
  tsc_shift: "i8",
  flags: "u8",
  pad1: array("u8", 2),
});

export const VCPU_INFO = struct("vcpu_info", {
  evtchn_upcall_pending: "u8",
  evtchn_upcall_mask: "u8",
  /** Which words of evtchn_pending have something. */
  evtchn_pending_sel: "ulong",
  arch: ARCH_VCPU_INFO,
  time: VCPU_TIME_INFO,
});

/** The page that a domain and Xen share. `wc_sec_hi` is in `arch` for 32-bit guests. */
export const SHARED_INFO = struct("shared_info", {
  vcpu_info: array(VCPU_INFO, XEN_LEGACY_MAX_VCPUS),
  evtchn_pending: array("ulong", { 32: 32, 64: 64 }),
  evtchn_mask: array("ulong", { 32: 32, 64: 64 }),
  /** Wall clock at system time 0; odd while Xen writes. */
  wc_version: "u32",
  wc_sec: "u32",
  wc_nsec: "u32",
  wc_sec_hi: only(64, "u32"),
  arch: ARCH_SHARED_INFO,
});

export const MAX_GUEST_CMDLINE = 1024;
/** Flags of start_info. */
export const SIF = {
  PRIVILEGED: 1 << 0,
  INITDOMAIN: 1 << 1,
  MULTIBOOT_MOD: 1 << 2,
  MOD_START_PFN: 1 << 3,
  VIRT_P2M_4TOOLS: 1 << 4,
  PM_MASK: 0xff << 8,
} as const;

/** What a PV kernel finds where ESI points. */
export const START_INFO = struct("start_info", {
  magic: array("u8", 32),
  nr_pages: "ulong",
  /** Machine address. */
  shared_info: "ulong",
  flags: "u32",
  store_mfn: "ulong",
  store_evtchn: "u32",
  console: union({
    domU: group({ mfn: "ulong", evtchn: "u32" }),
    dom0: group({ info_off: "u32", info_size: "u32" }),
  }),
  pt_base: "ulong",
  nr_pt_frames: "ulong",
  mfn_list: "ulong",
  mod_start: "ulong",
  mod_len: "ulong",
  cmd_line: array("u8", MAX_GUEST_CMDLINE),
  first_p2m_pfn: "ulong",
  nr_p2m_frames: "ulong",
});

/** A module of a package of modules; mod_start 0 ends the list. */
export const XEN_MULTIBOOT_MOD_LIST = struct("xen_multiboot_mod_list", {
  mod_start: "u32",
  mod_end: "u32",
  cmdline: "u32",
  pad: "u32",
});

/** What dom0_vga_console_info.u is. */
export const XEN_VGATYPE = { TEXT_MODE_3: 0x03, VESA_LFB: 0x23, EFI_LFB: 0x70 } as const;
export const DOM0_VGA_CONSOLE_INFO = struct("dom0_vga_console_info", {
  video_type: "u8",
  u: union({
    text_mode_3: group({
      font_height: "u16",
      cursor_x: "u16",
      cursor_y: "u16",
      rows: "u16",
      columns: "u16",
    }),
    vesa_lfb: group({
      width: "u16",
      height: "u16",
      bytes_per_line: "u16",
      bits_per_pixel: "u16",
      lfb_base: "u32",
      lfb_size: "u32",
      red_pos: "u8",
      red_size: "u8",
      green_pos: "u8",
      green_size: "u8",
      blue_pos: "u8",
      blue_size: "u8",
      rsvd_pos: "u8",
      rsvd_size: "u8",
      gbl_caps: "u32",
      mode_attrs: "u16",
      pad: "u16",
      ext_lfb_base: "u32",
    }),
  }),
});
