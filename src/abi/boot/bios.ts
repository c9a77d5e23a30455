/**
 * What a PC's BIOS keeps in memory: interrupt vectors, its data area and its entry points.
 * Sources: IBM PC/AT Technical Reference and PS/2 BIOS Interface Technical Reference (data areas,
 * compatible entry points).
 * @module
 */
import type { BootLayout } from "./fields.ts";

/** Bytes of the interrupt vectors at 0: 256 far pointers. */
export const IVT_SIZE = 0x400;

/** The BIOS data area at segment 40h. Words of an array have the place of its first. */
export const BDA_AT = 0x400, BDA_SIZE = 0x100;
export const BDA = {
  com1: [0x00, 2],
  ebda_segment: [0x0e, 2],
  equipment: [0x10, 2],
  /** Kilobytes of conventional memory, the extended area not among them. */
  memory_kilobytes: [0x13, 2],
  keyboard_flags: [0x17, 2],
  keyboard_head: [0x1a, 2],
  keyboard_tail: [0x1c, 2],
  video_mode: [0x49, 1],
  video_columns: [0x4a, 2],
  video_page_size: [0x4c, 2],
  cursor_shape: [0x60, 2],
  crt_port: [0x63, 2],
  crt_mode: [0x65, 1],
  crt_palette: [0x66, 1],
  /** Timer interrupts since midnight. */
  ticks: [0x6c, 4],
  lpt1_timeout: [0x78, 1],
  com1_timeout: [0x7c, 1],
  keyboard_buffer_start: [0x80, 2],
  keyboard_buffer_end: [0x82, 2],
  video_rows: [0x84, 1],
  character_height: [0x85, 2],
  video_control: [0x87, 1],
  video_switches: [0x88, 1],
  video_display: [0x89, 1],
  keyboard_type: [0x96, 1],
} as const satisfies BootLayout;

/** `equipment`: x87, pointing device, colour 80x25, and one serial port (bits 9 to 11). */
export const EQUIPMENT = 0x0002 | 0x0004 | 0x0020 | 0x0200;

/** Offsets in segment F000h where every compatible BIOS has these. */
export const BIOS_ENTRY = {
  post: 0xe05b,
  int13: 0xe3fe,
  int12: 0xf841,
  int11: 0xf84d,
  int15: 0xf859,
  timer: 0xfea5,
  iret: 0xff53,
  reset: 0xfff0,
  date: 0xfff5,
  model: 0xfffe,
} as const;
/** `model` of a PC/AT. */
export const MODEL_AT = 0xfc;
/** Timer interrupts in a day, at 1193182 / 65536 Hz. */
export const TICKS_PER_DAY = 0x1800b0;
