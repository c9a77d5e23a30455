/**
 * Grant tables: entries of both versions, operations, and the status that each answers with.
 * Source: Xen public/grant_table.h.
 *
 * @module
 */
import { array, group, struct, union } from "../layout.ts";
import { op, type Operations } from "./operation.ts";

/** Flags of a grant entry: a type in bits 1:0, and what goes with it. */
export const GTF = {
  invalid: 0,
  permit_access: 1,
  accept_transfer: 2,
  transitive: 3,
  type_mask: 3,
  readonly: 1 << 2,
  /** Set by Xen: the grantee has it mapped, or copies from it. */
  reading: 1 << 3,
  /** Set by Xen: mapped for writing, or copied to. */
  writing: 1 << 4,
  PWT: 1 << 5,
  PCD: 1 << 6,
  PAT: 1 << 7,
  /** Part of the page, for copying alone (version 2). */
  sub_page: 1 << 8,
  /** With accept_transfer, set by Xen: hands off until it is completed. */
  transfer_committed: 1 << 2,
  transfer_completed: 1 << 3,
} as const;

/** References that a domain's builder fills in. */
export const GNTTAB = {
  NR_RESERVED_ENTRIES: 8,
  RESERVED_CONSOLE: 0,
  RESERVED_XENSTORE: 1,
} as const;

export const GRANT_ENTRY_V1 = struct("grant_entry_v1", {
  flags: "u16",
  domid: "u16",
  /** The frame that is granted, or where a transferred one goes. */
  frame: "u32",
});

const header = struct("grant_entry_header", { flags: "u16", domid: "u16" });

export const GRANT_ENTRY_V2 = union({
  hdr: header,
  full_page: group({ hdr: header, pad0: "u32", frame: "u64" }),
  /** `length` bytes from `page_off`. */
  sub_page: group({ hdr: header, page_off: "u16", length: "u16", frame: "u64" }),
  /** Another domain's grant `gref`, passed on. */
  transitive: group({ hdr: header, trans_domid: "u16", pad0: "u16", gref: "u32" }),
  __spacer: array("u32", 4),
}, "grant_entry_v2");

/** Status words of version 2: GTF reading and writing, an entry's own 16 bits in frames apart. */
export const GRANT_STATUS_SIZE = 2;

/** Flags of map_grant_ref. */
export const GNTMAP = {
  device_map: 1 << 0,
  host_map: 1 << 1,
  readonly: 1 << 2,
  /** PV: for user mode too. */
  application_map: 1 << 3,
  /** PV: host_addr is the machine address of the entry to write. */
  contains_pte: 1 << 4,
  guest_avail_mask: 0xffff_0000,
} as const;

const gnttab_map_grant_ref = struct("gnttab_map_grant_ref", {
  host_addr: "u64",
  flags: "u32",
  ref: "u32",
  dom: "u16",
  status: "i16",
  handle: "u32",
  dev_bus_addr: "u64",
});
/** Addresses that are 0 are left alone. */
const gnttab_unmap_grant_ref = struct("gnttab_unmap_grant_ref", {
  host_addr: "u64",
  dev_bus_addr: "u64",
  handle: "u32",
  status: "i16",
});
/** The table gets `nr_frames` frames at least; their numbers go to `frame_list`. */
const gnttab_setup_table = struct("gnttab_setup_table", {
  dom: "u16",
  nr_frames: "u32",
  status: "i16",
  frame_list: "handle",
});
const gnttab_dump_table = struct("gnttab_dump_table", { dom: "u16", status: "i16" });
/** PV alone: the frame leaves the caller, also when it fails, unless that is bad_page. */
const gnttab_transfer = struct("gnttab_transfer", {
  mfn: "ulong",
  domid: "u16",
  ref: "u32",
  status: "i16",
});

/** Flags of copy: which end is a grant reference, and not a frame. */
export const GNTCOPY = { source_gref: 1 << 0, dest_gref: 1 << 1 } as const;

const gnttab_copy_ptr = struct("gnttab_copy_ptr", {
  u: union({ ref: "u32", gmfn: "ulong" }),
  domid: "u16",
  offset: "u16",
});
const gnttab_copy = struct("gnttab_copy", {
  source: gnttab_copy_ptr,
  dest: gnttab_copy_ptr,
  len: "u16",
  flags: "u16",
  status: "i16",
});
const gnttab_query_size = struct("gnttab_query_size", {
  dom: "u16",
  nr_frames: "u32",
  max_nr_frames: "u32",
  status: "i16",
});
/** `host_addr` gets what `new_addr` maps, and that becomes empty. */
const gnttab_unmap_and_replace = struct("gnttab_unmap_and_replace", {
  host_addr: "u64",
  new_addr: "u64",
  handle: "u32",
  status: "i16",
});
/** 1 or 2; read back as it is now. */
const gnttab_set_version = struct("gnttab_set_version", { version: "u32" });
const gnttab_get_status_frames = struct("gnttab_get_status_frames", {
  nr_frames: "u32",
  dom: "u16",
  status: "i16",
  frame_list: "handle",
});
const gnttab_get_version = struct("gnttab_get_version", { dom: "u16", pad: "u16", version: "u32" });
const gnttab_swap_grant_ref = struct("gnttab_swap_grant_ref", {
  ref_a: "u32",
  ref_b: "u32",
  status: "i16",
});

/** What cache_flush does; `SOURCE_GREF`: the page by reference, and not by bus address. */
export const GNTTAB_CACHE = { CLEAN: 1, INVAL: 2, SOURCE_GREF: 0x8000_0000 } as const;

const gnttab_cache_flush = struct("gnttab_cache_flush", {
  a: union({ dev_bus_addr: "u64", ref: "u32" }),
  offset: "u16",
  length: "u16",
  op: "u32",
});

/** grant_table_op(cmd, array of arguments, count). */
export const GNTTABOP = {
  map_grant_ref: op(0, gnttab_map_grant_ref, { out: ["status", "handle", "dev_bus_addr"] }),
  unmap_grant_ref: op(1, gnttab_unmap_grant_ref, { out: ["status"] }),
  setup_table: op(2, gnttab_setup_table, {
    out: ["status"],
    lists: [{ handle: "frame_list", count: "nr_frames", of: "ulong", direction: "out" }],
  }),
  dump_table: op(3, gnttab_dump_table, { out: ["status"], privileged: true }),
  transfer: op(4, gnttab_transfer, { out: ["status"] }),
  copy: op(5, gnttab_copy, { out: ["status"] }),
  query_size: op(6, gnttab_query_size, { out: ["nr_frames", "max_nr_frames", "status"] }),
  unmap_and_replace: op(7, gnttab_unmap_and_replace, { out: ["status"] }),
  set_version: op(8, gnttab_set_version, { inout: ["version"] }),
  get_status_frames: op(9, gnttab_get_status_frames, {
    out: ["status"],
    lists: [{ handle: "frame_list", count: "nr_frames", of: "u64", direction: "out" }],
  }),
  get_version: op(10, gnttab_get_version, { out: ["version"] }),
  swap_grant_ref: op(11, gnttab_swap_grant_ref, { out: ["status"] }),
  cache_flush: op(12, gnttab_cache_flush),
} as const satisfies Operations;

/** What `status` says. */
export const GNTST = {
  okay: 0,
  general_error: -1,
  bad_domain: -2,
  bad_gntref: -3,
  bad_handle: -4,
  bad_virt_addr: -5,
  bad_dev_addr: -6,
  no_device_space: -7,
  permission_denied: -8,
  bad_page: -9,
  bad_copy_arg: -10,
  address_too_big: -11,
  eagain: -12,
  no_space: -13,
} as const;
/** A status by name. */
export type GrantStatus = keyof typeof GNTST;
