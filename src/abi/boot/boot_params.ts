/**
 * Linux's boot_params ("zero page") and the setup header inside it.
 * Source: Linux Documentation/arch/x86/zero-page.rst and boot.rst.
 * @module
 */
import { placed } from "../layout.ts";

/** Fields of boot_params outside the setup header. */
export const BOOT_PARAMS = placed("boot_params", {
  // screen_info, at 0
  orig_x: [0x00, "u8"],
  orig_y: [0x01, "u8"],
  ext_mem_k: [0x02, "u16"],
  orig_video_page: [0x04, "u16"],
  orig_video_mode: [0x06, "u8"],
  orig_video_cols: [0x07, "u8"],
  orig_video_ega_bx: [0x0a, "u16"],
  orig_video_lines: [0x0e, "u8"],
  orig_video_isVGA: [0x0f, "u8"],
  orig_video_points: [0x10, "u16"],
  acpi_rsdp_addr: [0x070, "u64"],
  ext_ramdisk_image: [0x0c0, "u32"],
  ext_ramdisk_size: [0x0c4, "u32"],
  ext_cmd_line_ptr: [0x0c8, "u32"],
  alt_mem_k: [0x1e0, "u32"],
  e820_entries: [0x1e8, "u8"],
  sentinel: [0x1ef, "u8"],
}, 0x1000);

/** The E820 table in boot_params: where, and how many entries of 20 bytes fit. */
export const BOOT_PARAMS_E820 = { at: 0x2d0, entries: 128 } as const;

/** The setup header, by its offsets in the image and in boot_params alike. */
export const SETUP_HEADER = placed("setup_header", {
  setup_sects: [0x1f1, "u8"],
  root_flags: [0x1f2, "u16"],
  syssize: [0x1f4, "u32"],
  vid_mode: [0x1fa, "u16"],
  root_dev: [0x1fc, "u16"],
  boot_flag: [0x1fe, "u16"],
  jump: [0x200, "u16"],
  header: [0x202, "u32"],
  version: [0x206, "u16"],
  kernel_version: [0x20e, "u16"],
  type_of_loader: [0x210, "u8"],
  loadflags: [0x211, "u8"],
  code32_start: [0x214, "u32"],
  ramdisk_image: [0x218, "u32"],
  ramdisk_size: [0x21c, "u32"],
  heap_end_ptr: [0x224, "u16"],
  cmd_line_ptr: [0x228, "u32"],
  initrd_addr_max: [0x22c, "u32"],
  kernel_alignment: [0x230, "u32"],
  relocatable_kernel: [0x234, "u8"],
  min_alignment: [0x235, "u8"],
  xloadflags: [0x236, "u16"],
  cmdline_size: [0x238, "u32"],
  hardware_subarch: [0x23c, "u32"],
  payload_offset: [0x248, "u32"],
  payload_length: [0x24c, "u32"],
  setup_data: [0x250, "u64"],
  pref_address: [0x258, "u64"],
  init_size: [0x260, "u32"],
  handover_offset: [0x264, "u32"],
  kernel_info_offset: [0x268, "u32"],
});

/** First byte of the setup header; its end is 0x202 plus the byte at 0x201. */
export const SETUP_HEADER_AT = 0x1f1;
/** `boot_flag`. */
export const BOOT_FLAG = 0xaa55;
/** `header`: "HdrS". */
export const HEADER_MAGIC = 0x53726448;
/** `loadflags`: the kernel's code is loaded high; the heap may be used; keep quiet. */
export const LOADED_HIGH = 0x01, QUIET_FLAG = 0x20, CAN_USE_HEAP = 0x80;
/** `xloadflags`: a 64-bit entry 0x200 bytes into the kernel; parts may lie above 4 GB. */
export const XLF_KERNEL_64 = 0x01, XLF_CAN_BE_LOADED_ABOVE_4G = 0x02;
/** `type_of_loader` of a loader without a number of its own. */
export const LOADER_UNDEFINED = 0xff;
/** Selectors the 32-bit and 64-bit entries expect: flat code and flat data. */
export const BOOT_CS = 0x10, BOOT_DS = 0x18;
/** The 64-bit entry's distance from the start of the protected-mode code. */
export const ENTRY_64_OFFSET = 0x200;
/** Where protected-mode code goes when the kernel names no place of its own. */
export const DEFAULT_LOAD_ADDRESS = 0x100000;
