/**
 * PE, as far as a signed kernel image has one.
 * Source: Microsoft PE/COFF Specification 11, sections 2 (headers) and 4 (certificate table).
 * @module
 */

/** Offsets in bytes; `optional` is the optional header's from the signature on, the rest in it. */
export const PE = {
  dosMagic: 0x5a4d,
  /** Where the file says its PE header is. */
  headerAt: 0x3c,
  magic: 0x4550,
  optional: 24,
  /** Magic of the 64-bit optional header. */
  wide: 0x20b,
  /** The data directory's entry for certificates: file offset, then size. */
  certificates32: 96 + 4 * 8,
  certificates64: 112 + 4 * 8,
} as const;
