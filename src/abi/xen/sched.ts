/**
 * Scheduler operations and reasons to shut down.
 * Source: Xen public/sched.h.
 *
 * @module
 */
import { struct } from "../layout.ts";
import { op, type Operations } from "./operation.ts";

/** Why a domain shuts down. */
export const SHUTDOWN = {
  poweroff: 0,
  reboot: 1,
  suspend: 2,
  crash: 3,
  watchdog: 4,
  /** State of the platform starts over; memory and vCPUs stay. */
  soft_reset: 5,
  MAX: 5,
} as const;

const sched_shutdown = struct("sched_shutdown", { reason: "u32" });
/** Waits until a port is pending, or until a system time in nanoseconds; 0: for ever. */
const sched_poll = struct("sched_poll", { ports: "handle", nr_ports: "u32", timeout: "u64" });
const sched_remote_shutdown = struct("sched_remote_shutdown", { domain_id: "u16", reason: "u32" });
/** id 0 makes one of `timeout` seconds and returns its id; timeout 0 ends one; else it is set anew. */
const sched_watchdog = struct("sched_watchdog", { id: "u32", timeout: "u32" });
/** A negative `pcpu` ends the override. */
const sched_pin_override = struct("sched_pin_override", { pcpu: "i32" });

/** sched_op(cmd, argument). */
export const SCHEDOP = {
  yield: op(0),
  block: op(1),
  shutdown: op(2, sched_shutdown),
  poll: op(3, sched_poll, {
    lists: [{ handle: "ports", count: "nr_ports", of: "u32", direction: "in" }],
  }),
  remote_shutdown: op(4, sched_remote_shutdown, { privileged: true }),
  shutdown_code: op(5, sched_shutdown),
  watchdog: op(6, sched_watchdog),
  pin_override: op(7, sched_pin_override, { privileged: true }),
} as const satisfies Operations;
