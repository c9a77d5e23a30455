/**
 * Non-maskable interrupts for domain 0.
 * Source: Xen public/nmi.h.
 *
 * @module
 */
import { struct } from "../layout.ts";
import { op, type Operations } from "./operation.ts";

/** Bits of arch_shared_info.nmi_reason. */
export const XEN_NMIREASON = { io_error: 1 << 0, pci_serr: 1 << 1, unknown: 1 << 2 } as const;

const xennmi_callback = struct("xennmi_callback", { handler_address: "ulong", pad: "ulong" });

/** nmi_op(cmd, argument). */
export const XENNMI = {
  register_callback: op(0, xennmi_callback),
  unregister_callback: op(1),
} as const satisfies Operations;
