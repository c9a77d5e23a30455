/**
 * Linux's boot_params ("zero page") and the setup header inside it.
 * Source: Linux Documentation/arch/x86/zero-page.rst and boot.rst.
 * @module
 */
import type { BootLayout } from "./fields.ts";

/** Bytes of boot_params. */
export const BOOT_PARAMS_SIZE = 0x1000;

/** Fields of boot_params outside the setup header. */
export const BOOT_PARAMS = {
  // screen_info, at 0
  orig_x: [0x00, 1],
  orig_y: [0x01, 1],
  ext_mem_k: [0x02, 2],
  orig_video_page: [0x04, 2],
  orig_video_mode: [0x06, 1],
  orig_video_cols: [0x07, 1],
  orig_video_ega_bx: [0x0a, 2],
  orig_video_lines: [0x0e, 1],
  orig_video_isVGA: [0x0f, 1],
  orig_video_points: [0x10, 2],
  acpi_rsdp_addr: [0x070, 8],
  ext_ramdisk_image: [0x0c0, 4],
  ext_ramdisk_size: [0x0c4, 4],
  ext_cmd_line_ptr: [0x0c8, 4],
  alt_mem_k: [0x1e0, 4],
  e820_entries: [0x1e8, 1],
  sentinel: [0x1ef, 1],
} as const satisfies BootLayout;

/** The E820 table in boot_params: where, and how many entries of 20 bytes fit. */
export const BOOT_PARAMS_E820 = { at: 0x2d0, entries: 128 } as const;

/** The setup header, by its offsets in the image and in boot_params alike. */
export const SETUP_HEADER = {
  setup_sects: [0x1f1, 1],
  root_flags: [0x1f2, 2],
  syssize: [0x1f4, 4],
  vid_mode: [0x1fa, 2],
  root_dev: [0x1fc, 2],
  boot_flag: [0x1fe, 2],
  jump: [0x200, 2],
  header: [0x202, 4],
  version: [0x206, 2],
  kernel_version: [0x20e, 2],
  type_of_loader: [0x210, 1],
  loadflags: [0x211, 1],
  code32_start: [0x214, 4],
  ramdisk_image: [0x218, 4],
  ramdisk_size: [0x21c, 4],
  heap_end_ptr: [0x224, 2],
  cmd_line_ptr: [0x228, 4],
  initrd_addr_max: [0x22c, 4],
  kernel_alignment: [0x230, 4],
  relocatable_kernel: [0x234, 1],
  min_alignment: [0x235, 1],
  xloadflags: [0x236, 2],
  cmdline_size: [0x238, 4],
  hardware_subarch: [0x23c, 4],
  payload_offset: [0x248, 4],
  payload_length: [0x24c, 4],
  setup_data: [0x250, 8],
  pref_address: [0x258, 8],
  init_size: [0x260, 4],
  handover_offset: [0x264, 4],
  kernel_info_offset: [0x268, 4],
} as const satisfies BootLayout;

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
