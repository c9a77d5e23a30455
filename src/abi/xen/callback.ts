/**
 * Where Xen enters a PV kernel.
 * Source: Xen public/callback.h.
 *
 * @module
 */
import { struct } from "../layout.ts";
import { XEN_CALLBACK } from "./arch_x86.ts";
import { op, type Operations } from "./operation.ts";

/** What a callback is for. */
export const CALLBACKTYPE = {
  event: 0,
  /** A return to the guest that could not be made. */
  failsafe: 1,
  syscall: 2,
  sysenter_deprecated: 3,
  nmi: 4,
  sysenter: 5,
  syscall32: 7,
} as const;
/** Flags of a callback: whether events are masked when it is entered. */
export const CALLBACKF = { mask_events: 1 << 0 } as const;

const callback_register = struct("callback_register", {
  type: "u16",
  flags: "u16",
  address: XEN_CALLBACK,
});
const callback_unregister = struct("callback_unregister", { type: "u16", _unused: "u16" });

/** callback_op(cmd, argument). */
export const CALLBACKOP = {
  register: op(0, callback_register),
  unregister: op(1, callback_unregister),
} as const satisfies Operations;
