/**
 * What a PC's BIOS keeps in memory: interrupt vectors, its data area and its entry points.
 * Sources: IBM PC/AT Technical Reference and PS/2 BIOS Interface Technical Reference (data areas,
 * compatible entry points).
 * @module
 */
import { placed } from "../layout.ts";

/** Bytes of the interrupt vectors at 0: 256 far pointers. */
export const IVT_SIZE = 0x400;

/** The BIOS data area at segment 40h. Words of an array have the place of its first. */
export const BDA_AT = 0x400;
export const BDA = placed("bda", {
  com1: [0x00, "u16"],
  ebda_segment: [0x0e, "u16"],
  equipment: [0x10, "u16"],
  /** Kilobytes of conventional memory, the extended area not among them. */
  memory_kilobytes: [0x13, "u16"],
  keyboard_flags: [0x17, "u16"],
  keyboard_head: [0x1a, "u16"],
  keyboard_tail: [0x1c, "u16"],
  video_mode: [0x49, "u8"],
  video_columns: [0x4a, "u16"],
  video_page_size: [0x4c, "u16"],
  cursor_shape: [0x60, "u16"],
  crt_port: [0x63, "u16"],
  crt_mode: [0x65, "u8"],
  crt_palette: [0x66, "u8"],
  /** Timer interrupts since midnight. */
  ticks: [0x6c, "u32"],
  lpt1_timeout: [0x78, "u8"],
  com1_timeout: [0x7c, "u8"],
  keyboard_buffer_start: [0x80, "u16"],
  keyboard_buffer_end: [0x82, "u16"],
  video_rows: [0x84, "u8"],
  character_height: [0x85, "u16"],
  video_control: [0x87, "u8"],
  video_switches: [0x88, "u8"],
  video_display: [0x89, "u8"],
  keyboard_type: [0x96, "u8"],
}, 0x100);

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
