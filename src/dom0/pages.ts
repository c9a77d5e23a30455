/**
 * Where things are in the pages that domains share with services of domain 0.
 *
 * @module
 */
import { layoutOf, offsetOf, type StructFields, type StructOf } from "../abi/layout.ts";
import { XENCONS_INTERFACE } from "../abi/xen/io/console.ts";
import { XENSTORE_DOMAIN_INTERFACE } from "../abi/xen/io/xs_wire.ts";

/** Where a ring is in its page. */
export interface RingPlace {
  readonly data: number;
  /** Bytes; a power of two. */
  readonly size: number;
  /** Offset of the consumer's index; the producer's is behind it. */
  readonly indices: number;
}

/** A ring's bytes, and the indices of its name: they have the same places for 32- and 64-bit code. */
function ringPlace<F extends StructFields>(page: StructOf<F>, name: keyof F & string): RingPlace {
  const { places } = layoutOf(page, 32), data = places.get(name)!;
  return { data: data.offset, size: data.count!, indices: places.get(`${name}_cons`)!.offset };
}

/** Rings and fields of XenStore's page. */
export const XENSTORE_PAGE = {
  requests: ringPlace(XENSTORE_DOMAIN_INTERFACE, "req"),
  replies: ringPlace(XENSTORE_DOMAIN_INTERFACE, "rsp"),
  features: offsetOf(XENSTORE_DOMAIN_INTERFACE, "server_features", 32),
  connection: offsetOf(XENSTORE_DOMAIN_INTERFACE, "connection", 32),
  error: offsetOf(XENSTORE_DOMAIN_INTERFACE, "error", 32),
} as const;

/** Rings of the console's page: what the domain writes, and what it reads. */
export const CONSOLE_PAGE = {
  output: ringPlace(XENCONS_INTERFACE, "out"),
  input: ringPlace(XENCONS_INTERFACE, "in"),
} as const;
