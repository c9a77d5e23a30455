/**
 * How much is taken from a file: what is larger is refused before it is read or made.
 * @module
 */

/** Bytes of a kernel when decompressed: more is none, and not worth allocating for a corrupt length. */
export const UNPACKED_MAX: number = 512 << 20;
