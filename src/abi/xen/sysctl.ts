/**
 * Operations on Xen itself, for tool stacks alone: names and numbers.
 * Source: Xen public/sysctl.h of 4.17.
 *
 * @module
 */
import { array, group, struct } from "../layout.ts";

/** Its argument: what each command has of its own lies in `u`. */
export const SYSCTL = struct("xen_sysctl", {
  cmd: "u32",
  interface_version: "u32",
  u: group({ pad: array("u8", 128) }),
});

/** sysctl(argument): `cmd` is the argument's first field. */
export const XEN_SYSCTL = {
  readconsole: 1,
  tbuf_op: 2,
  physinfo: 3,
  sched_id: 4,
  perfc_op: 5,
  getdomaininfolist: 6,
  debug_keys: 7,
  getcpuinfo: 8,
  availheap: 9,
  get_pmstat: 10,
  cpu_hotplug: 11,
  pm_op: 12,
  page_offline_op: 14,
  lockprof_op: 15,
  cputopoinfo: 16,
  numainfo: 17,
  cpupool_op: 18,
  scheduler_op: 19,
  coverage_op: 20,
  psr_cmt_op: 21,
  pcitopoinfo: 22,
  psr_alloc: 23,
  get_cpu_levelling_caps: 25,
  get_cpu_featureset: 26,
  livepatch_op: 27,
  get_cpu_policy: 29,
} as const;
/** What `interface_version`, the second field, has to be. */
export const XEN_SYSCTL_INTERFACE_VERSION = 0x15;
