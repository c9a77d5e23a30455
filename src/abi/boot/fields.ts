/** Tables of fields, which describe the structures that a loader and a kernel hand each other. */

/** A field of a structure in memory: byte offset and width in bytes, little-endian. */
export type BootField = readonly [at: number, width: 1 | 2 | 4 | 8];

/** A structure: field name to place. */
export type BootLayout = Readonly<Record<string, BootField>>;
