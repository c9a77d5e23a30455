/**
 * A domain's memory: reservations, the physical map, and what can be asked of it.
 * Source: Xen public/memory.h.
 *
 * @module
 */
import { E820_ENTRY } from "../boot/e820.ts";
import { group, struct, union } from "../layout.ts";
import { op, type Operations } from "./operation.ts";

/** Flags of xen_memory_reservation.mem_flags; bits 7:0 are the widest address, bits 15:8 a node + 1. */
export const XENMEMF = {
  populate_on_demand: 1 << 16,
  exact_node_request: 1 << 17,
  vnode: 1 << 18,
} as const;

/** Where a page for add_to_physmap comes from. */
export const XENMAPSPACE = {
  shared_info: 0,
  /** idx: frame of the table; with XENMAPIDX_grant_table_status, of the status frames. */
  grant_table: 1,
  /** idx: a frame of the domain itself. */
  gmfn: 2,
  gmfn_range: 3,
  /** In batches alone: a frame of another domain. */
  gmfn_foreign: 4,
  dev_mmio: 5,
} as const;
export const XENMAPIDX_grant_table_status = 0x8000_0000;

/** What acquire_resource hands out, and the ids of a grant table's. */
export const XENMEM_resource = {
  ioreq_server: 0,
  grant_table: 1,
  vmtrace_buf: 2,
  grant_table_id_shared: 0,
  grant_table_id_status: 1,
  /** Frames of an ioreq server: the buffered one; then page n of the others is 1 + n. */
  ioreq_server_frame_bufioreq: 0,
} as const;

/** Extents of 2^extent_order pages; what `extent_start` holds depends on the operation. */
const xen_memory_reservation = struct("xen_memory_reservation", {
  extent_start: "handle",
  nr_extents: "ulong",
  extent_order: "u32",
  mem_flags: "u32",
  domid: "u16",
});
const extents = (direction: "in" | "out" | "inout") => ({
  lists: [{ handle: "extent_start", count: "nr_extents", of: "ulong", direction }],
} as const);

const xen_memory_exchange = struct("xen_memory_exchange", {
  in: xen_memory_reservation,
  out: xen_memory_reservation,
  /** The caller sets 0. */
  nr_exchanged: "ulong",
});
const xen_memory_domain = struct("xen_memory_domain", { domid: "u16" });
const xen_machphys_mfn_list = struct("xen_machphys_mfn_list", {
  max_extents: "u32",
  extent_start: "handle",
  nr_extents: "u32",
});
const xen_machphys_mapping = struct("xen_machphys_mapping", {
  v_start: "ulong",
  v_end: "ulong",
  max_mfn: "ulong",
});
const xen_add_to_physmap = struct("xen_add_to_physmap", {
  domid: "u16",
  /** Pages, for gmfn_range. */
  size: "u16",
  space: "u32",
  idx: "ulong",
  gpfn: "ulong",
});
const xen_add_to_physmap_batch = struct("xen_add_to_physmap_batch", {
  domid: "u16",
  space: "u16",
  size: "u16",
  u: union({ foreign_domid: "u16", res0: "u16" }),
  idxs: "handle",
  gpfns: "handle",
  errs: "handle",
});
const xen_remove_from_physmap = struct("xen_remove_from_physmap", { domid: "u16", gpfn: "ulong" });
/** `buffer` holds e820 entries of 20 bytes. */
const xen_memory_map = struct("xen_memory_map", { nr_entries: "u32", buffer: "handle" });
const xen_foreign_memory_map = struct("xen_foreign_memory_map", {
  domid: "u16",
  map: xen_memory_map,
});
const xen_pod_target = struct("xen_pod_target", {
  target_pages: "u64",
  tot_pages: "u64",
  pod_cache_pages: "u64",
  pod_entries: "u64",
  domid: "u16",
});
const xen_mem_acquire_resource = struct("xen_mem_acquire_resource", {
  domid: "u16",
  type: "u16",
  id: "u32",
  nr_frames: "u32",
  pad: "u32",
  frame: "u64",
  frame_list: "handle",
});
const xen_vnuma_topology_info = struct("xen_vnuma_topology_info", {
  domid: "u16",
  pad: "u16",
  nr_vnodes: "u32",
  nr_vcpus: "u32",
  nr_vmemranges: "u32",
  vdistance: union({ h: "handle", pad: "u64" }),
  vcpu_to_vnode: union({ h: "handle", pad: "u64" }),
  vmemrange: union({ h: "handle", pad: "u64" }),
});
export const XEN_VMEMRANGE = struct("xen_vmemrange", {
  start: "u64",
  end: "u64",
  flags: "u32",
  nid: "u32",
});

const xen_mem_access_op = struct("xen_mem_access_op", {
  op: "u8",
  access: "u8",
  domid: "u16",
  nr: "u32",
  pfn: "u64a",
  pfn_list: "handle",
  access_list: "handle",
});
/** `buffer` holds xen_reserved_device_memory: start, pages. */
const xen_reserved_device_memory_map = struct("xen_reserved_device_memory_map", {
  flags: "u32",
  nr_entries: "u32",
  buffer: "handle",
  dev: union({ pci: group({ seg: "u16", bus: "u8", devfn: "u8" }) }),
});
/** The only flag of it: of all devices. */
export const XENMEM_RDM_ALL = 1;

/**
 * memory_op(cmd, argument). Beside an errno, increase, decrease and populate return how many extents
 * were done; maximum_ram_page, the reservations and maximum_gpfn return what they are asked.
 */
export const XENMEM = {
  increase_reservation: op(0, xen_memory_reservation, extents("out")),
  decrease_reservation: op(1, xen_memory_reservation, extents("in")),
  maximum_ram_page: op(2),
  current_reservation: op(3, xen_memory_domain),
  maximum_reservation: op(4, xen_memory_domain),
  machphys_mfn_list: op(5, xen_machphys_mfn_list, {
    out: ["nr_extents"],
    lists: [{ handle: "extent_start", count: "nr_extents", of: "ulong", direction: "out" }],
  }),
  populate_physmap: op(6, xen_memory_reservation, extents("inout")),
  add_to_physmap: op(7, xen_add_to_physmap),
  memory_map: op(9, xen_memory_map, {
    inout: ["nr_entries"],
    lists: [{ handle: "buffer", count: "nr_entries", of: E820_ENTRY, direction: "out" }],
  }),
  machine_memory_map: op(10, xen_memory_map, {
    inout: ["nr_entries"],
    lists: [{ handle: "buffer", count: "nr_entries", of: E820_ENTRY, direction: "out" }],
    privileged: true,
  }),
  exchange: op(11, xen_memory_exchange, {
    inout: ["nr_exchanged"],
    lists: [
      { handle: "in.extent_start", count: "in.nr_extents", of: "ulong", direction: "in" },
      { handle: "out.extent_start", count: "out.nr_extents", of: "ulong", direction: "inout" },
    ],
  }),
  machphys_mapping: op(12, xen_machphys_mapping, { out: ["v_start", "v_end", "max_mfn"] }),
  set_memory_map: op(13, xen_foreign_memory_map, {
    lists: [{
      handle: "map.buffer",
      count: "map.nr_entries",
      of: E820_ENTRY,
      direction: "in",
    }],
    privileged: true,
  }),
  maximum_gpfn: op(14, xen_memory_domain),
  remove_from_physmap: op(15, xen_remove_from_physmap),
  set_pod_target: op(16, xen_pod_target, {
    out: ["tot_pages", "pod_cache_pages", "pod_entries"],
    privileged: true,
  }),
  get_pod_target: op(17, xen_pod_target, {
    out: ["tot_pages", "pod_cache_pages", "pod_entries"],
    privileged: true,
  }),
  get_sharing_freed_pages: op(18),
  get_sharing_shared_pages: op(19),
  paging_op: op(20, undefined, { privileged: true }),
  access_op: op(21, xen_mem_access_op, { privileged: true }),
  sharing_op: op(22, undefined, { privileged: true }),
  add_to_physmap_batch: op(23, xen_add_to_physmap_batch, {
    lists: [
      { handle: "idxs", count: "size", of: "ulong", direction: "in" },
      { handle: "gpfns", count: "size", of: "ulong", direction: "in" },
      { handle: "errs", count: "size", of: "i32", direction: "out" },
    ],
  }),
  claim_pages: op(24, xen_memory_reservation, { privileged: true }),
  machphys_compat_mfn_list: op(25, xen_machphys_mfn_list, {
    out: ["nr_extents"],
    lists: [{ handle: "extent_start", count: "nr_extents", of: "u32", direction: "out" }],
  }),
  get_vnumainfo: op(26, xen_vnuma_topology_info, {
    inout: ["nr_vnodes", "nr_vcpus", "nr_vmemranges"],
    lists: [
      { handle: "vdistance.h", of: "u32", direction: "out" },
      { handle: "vcpu_to_vnode.h", count: "nr_vcpus", of: "u32", direction: "out" },
      { handle: "vmemrange.h", count: "nr_vmemranges", of: XEN_VMEMRANGE, direction: "out" },
    ],
  }),
  reserved_device_memory_map: op(27, xen_reserved_device_memory_map, { inout: ["nr_entries"] }),
  acquire_resource: op(28, xen_mem_acquire_resource, {
    inout: ["nr_frames", "frame"],
    lists: [{ handle: "frame_list", count: "nr_frames", of: "ulong", direction: "inout" }],
    privileged: true,
  }),
} as const satisfies Operations;

/**
 * How memory_op's first argument divides: the command below, above it the extent to go on from when Xen
 * continues a call (xen/include/xen/hypercall.h: guests see it when one is interrupted).
 */
export const MEMOP = { EXTENT_SHIFT: 6, CMD_MASK: 63 } as const;
