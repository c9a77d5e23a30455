/**
 * The console's ring page.
 * Source: Xen public/io/console.h.
 *
 * @module
 */
import { array, struct } from "../../layout.ts";

/** Indices count on; the ring is taken modulo its bytes. `out` is the guest's output. */
export const XENCONS_INTERFACE = struct("xencons_interface", {
  in: array("u8", 1024),
  out: array("u8", 2048),
  in_cons: "u32",
  in_prod: "u32",
  out_cons: "u32",
  out_prod: "u32",
});
