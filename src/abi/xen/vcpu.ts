/**
 * Operations on vCPUs.
 * Source: Xen public/vcpu.h.
 *
 * @module
 */
import { array, struct, union } from "../layout.ts";
import { VCPU_GUEST_CONTEXT } from "./arch_x86.ts";
import { op, type Operations } from "./operation.ts";

/** What a vCPU does (`vcpu_runstate_info.state`, and the index of `time`). */
export const RUNSTATE = { running: 0, runnable: 1, blocked: 2, offline: 3 } as const;

/** Set in `state_entry_time` while Xen writes the area; needs vm_assist's runstate_update_flag. */
export const XEN_RUNSTATE_UPDATE = 1n << 63n;

/** Times in nanoseconds of system time. */
export const VCPU_RUNSTATE_INFO = struct("vcpu_runstate_info", {
  state: "i32",
  state_entry_time: "u64",
  time: array("u64", 4),
});

/** The address of an area that Xen keeps up to date: linear, for x86. */
const vcpu_register_runstate_memory_area = struct("vcpu_register_runstate_memory_area", {
  addr: union({ h: "handle", v: "handle", p: "u64" }),
});
const vcpu_register_time_memory_area = struct("vcpu_register_time_memory_area", {
  addr: union({ h: "handle", v: "handle", p: "u64" }),
});
const vcpu_set_periodic_timer = struct("vcpu_set_periodic_timer", { period_ns: "u64" });
/** Flags of set_singleshot_timer; `future`: a time in the past is refused with ETIME. */
export const VCPU_SSHOTTMR = { future: 1 } as const;
const vcpu_set_singleshot_timer = struct("vcpu_set_singleshot_timer", {
  timeout_abs_ns: "u64",
  flags: "u32",
});
/** Where the vCPU's vcpu_info stands from now on: within one page, once. */
const vcpu_register_vcpu_info = struct("vcpu_register_vcpu_info", {
  mfn: "u64",
  offset: "u32",
  rsvd: "u32",
});
/** APIC id in bits 31:0, ACPI id in 63:32. */
const vcpu_get_physid = struct("vcpu_get_physid", { phys_id: "u64" });

/**
 * vcpu_op(cmd, vcpu, argument). `initialise` takes a vcpu_guest_context from a PV domain; from others
 * vcpu_hvm_context (hvm/hvm_vcpu.ts).
 */
export const VCPUOP = {
  initialise: op(0, VCPU_GUEST_CONTEXT),
  up: op(1),
  down: op(2),
  is_up: op(3),
  get_runstate_info: op(4, VCPU_RUNSTATE_INFO, { out: ["state", "state_entry_time", "time"] }),
  register_runstate_memory_area: op(5, vcpu_register_runstate_memory_area),
  set_periodic_timer: op(6, vcpu_set_periodic_timer),
  stop_periodic_timer: op(7),
  set_singleshot_timer: op(8, vcpu_set_singleshot_timer),
  stop_singleshot_timer: op(9),
  register_vcpu_info: op(10, vcpu_register_vcpu_info),
  send_nmi: op(11),
  get_physid: op(12, vcpu_get_physid, { out: ["phys_id"] }),
  register_vcpu_time_memory_area: op(13, vcpu_register_time_memory_area),
} as const satisfies Operations;
