/**
 * What this computer and its guests can have at most.
 * @module
 */
import { PC } from "./boot/e820.ts";

/** Bytes of machine memory: what 32 bits address, as in a WebAssembly memory. */
export const MACHINE_MEMORY_MAX = 2 ** 32;

/** Most processors of this computer. */
export const HOST_PROCESSORS_MAX = 8;

/** Processors of a guest. */
export const GUEST_PROCESSORS = { min: 1, max: 16 } as const;

/**
 * Bytes of a guest's memory: with less there is no high memory to load a kernel into, more does not
 * fit below the devices' place under 4 GB.
 */
export const GUEST_MEMORY = { min: 2 * 2 ** 20, max: PC.lowRamEnd } as const;
