/**
 * Linux's boot_params, the "zero page": what a kernel is told by whoever loads it.
 *
 * @module
 */
import { fixed, offsetOf, sizeOf } from "../abi/layout.ts";
import {
  BOOT_PARAMS,
  BOOT_PARAMS_E820,
  LOADER_UNDEFINED,
  SETUP_HEADER,
} from "../abi/boot/boot_params.ts";
import { PC } from "../abi/boot/e820.ts";
import { type E820Range, encodeE820 } from "./e820.ts";

/** What boot_params tells a kernel besides its own setup header. */
export interface BootParams {
  readonly e820: readonly E820Range[];
  /** Guest-physical addresses and sizes in bytes. */
  readonly cmdline: number;
  readonly ramdisk?: { readonly at: number; readonly size: number };
  readonly rsdp?: number;
  /** The setup header of the image, as it stands at 0x1F1; absent for a bare vmlinux. */
  readonly header?: Uint8Array;
}

/** Cursor, mode and size of VGA text mode 3, as the BIOS leaves it. */
const TEXT_SCREEN = {
  orig_x: 0,
  orig_y: 0,
  orig_video_mode: 3,
  orig_video_cols: 80,
  orig_video_lines: 25,
  orig_video_isVGA: 1,
  orig_video_points: 16,
};

/**
 * Fills a boot_params page: screen_info for VGA text 80x25, the E820 map, command line, ramdisk
 * and RSDP, around a copy of the image's setup header.
 *
 * Source: Linux Documentation/arch/x86/zero-page.rst; boot.rst, "32-bit Boot Protocol".
 */
export function makeBootParams(params: BootParams): Uint8Array {
  const bytes = new Uint8Array(sizeOf(BOOT_PARAMS, 64));
  if (params.header) bytes.set(params.header, offsetOf(SETUP_HEADER, "setup_sects", 64));
  const high = params.e820.find((r) => r.type === "ram" && r.base === PC.highMemory);
  const kilobytes = Math.floor((high?.length ?? 0) / 1024);
  fixed(BOOT_PARAMS, bytes).setAll({
    ...TEXT_SCREEN,
    ext_mem_k: Math.min(kilobytes, 0xffff),
    alt_mem_k: Math.min(kilobytes, 0xffffffff),
    acpi_rsdp_addr: params.rsdp ?? 0,
    e820_entries: params.e820.length,
  });
  bytes.set(encodeE820(params.e820), BOOT_PARAMS_E820.at);
  fixed(SETUP_HEADER, bytes).setAll({
    type_of_loader: LOADER_UNDEFINED,
    vid_mode: 0xffff, // normal
    cmd_line_ptr: params.cmdline,
    ramdisk_image: params.ramdisk?.at ?? 0,
    ramdisk_size: params.ramdisk?.size ?? 0,
  });
  return bytes;
}
