/**
 * Operations of and on HVM domains.
 * Source: Xen public/hvm/hvm_op.h; those below 0x00040900 that only tools may call are left to dm_op.
 *
 * @module
 */
import { array, struct } from "../../layout.ts";
import { op, type Operations } from "../operation.ts";

const xen_hvm_param = struct("xen_hvm_param", {
  domid: "u16",
  pad: "u16",
  index: "u32",
  value: "u64",
});
const xen_hvm_pagetable_dying = struct("xen_hvm_pagetable_dying", {
  domid: "u16",
  pad: array("u16", 3),
  gpa: "u64",
});
/** Nanoseconds since the host started. */
const xen_hvm_get_time = struct("xen_hvm_get_time", { now: "u64" });
const xen_hvm_xentrace = struct("xen_hvm_xentrace", {
  event: "u16",
  extra_bytes: "u16",
  extra: array("u8", 28),
});
const xen_hvm_get_mem_type = struct("xen_hvm_get_mem_type", {
  domid: "u16",
  mem_type: "u16",
  pad: array("u16", 2),
  pfn: "u64",
});
/** The vector goes before CALLBACK_IRQ; it reaches the vCPU through its local APIC. */
const xen_hvm_evtchn_upcall_vector = struct("xen_hvm_evtchn_upcall_vector", {
  vcpu: "u32",
  vector: "u8",
});

/** Types of memory (get_mem_type). */
export const HVMMEM = { ram_rw: 0, ram_ro: 1, mmio_dm: 2, unused: 3, ioreq_server: 4 } as const;

/** Whether an ioreq server has a buffered page. */
export const HVM_IOREQSRV_BUFIOREQ = { OFF: 0, LEGACY: 1, ATOMIC: 2 } as const;

/** hvm_op(cmd, argument). */
export const HVMOP = {
  set_param: op(0, xen_hvm_param),
  get_param: op(1, xen_hvm_param, { out: ["value"] }),
  flush_tlbs: op(5),
  pagetable_dying: op(9, xen_hvm_pagetable_dying),
  get_time: op(10, xen_hvm_get_time, { out: ["now"] }),
  xentrace: op(11, xen_hvm_xentrace),
  set_mem_access: op(12, undefined, { privileged: true }),
  get_mem_access: op(13, undefined, { privileged: true }),
  get_mem_type: op(15, xen_hvm_get_mem_type, { out: ["mem_type"] }),
  set_evtchn_upcall_vector: op(23, xen_hvm_evtchn_upcall_vector),
  guest_request_vm_event: op(24),
  altp2m: op(25),
} as const satisfies Operations;
