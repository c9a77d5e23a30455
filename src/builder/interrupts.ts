/** How the interrupt controllers of xvm's board are wired, for the tables that tell kernels so. */
import { ACPI_SCI, MPS_ACTIVE_HIGH, MPS_LEVEL } from "../abi/boot/acpi.ts";

/**
 * Id of the I/O APIC: the first that no processor has. It has four bits; with sixteen processors it
 * shares one, which is no matter where local APICs have a bus of their own, as xAPICs do.
 */
export const ioApicId = (processors: number): number => processors & 15;

/** ISA interrupts that reach the I/O APIC by another pin, or otherwise than edge-triggered. */
export const OVERRIDES: readonly {
  readonly line: number;
  readonly pin: number;
  /** Polarity and trigger, as both kinds of tables have them; 0: the bus's. */
  readonly flags: number;
}[] = [
  { line: 0, pin: 2, flags: 0 },
  { line: ACPI_SCI, pin: ACPI_SCI, flags: MPS_ACTIVE_HIGH | MPS_LEVEL },
];

/** Pins of local APICs: the 8259s at the bootstrap processor's, NMI at all. */
export const LINT = { extInt: 0, nmi: 1 } as const;

/** A byte that makes the sum of a range 0 modulo 256. */
export function checksum(bytes: Uint8Array): number {
  return -bytes.reduce((sum, b) => sum + b, 0) & 0xff;
}

/** Writes a text's bytes. */
export function putText(bytes: Uint8Array, at: number, text: string): void {
  bytes.set(new TextEncoder().encode(text), at);
}
