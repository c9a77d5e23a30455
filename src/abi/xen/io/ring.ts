/**
 * The rings of paravirtual devices: what stands before the entries of a shared page.
 * Source: Xen public/io/ring.h.
 *
 * @module
 */
import { type AbiType, array, struct } from "../../layout.ts";

/**
 * A ring (`struct NAME_sring` of DEFINE_RING_TYPES); `entry` is the union of request and response. The first
 * entry is described; there are as many as the largest power of two that fits the page. Indices count on.
 * Who has set `req_event` (or `rsp_event`) is told when the producer passes it.
 */
export const ringOf = <const E extends AbiType>(name: string, entry: E) =>
  struct(`${name}_sring`, {
    req_prod: "u32",
    req_event: "u32",
    rsp_prod: "u32",
    rsp_event: "u32",
    pvt: array("u8", 4),
    __pad: array("u8", 44),
    ring: array(entry, 1),
  });
