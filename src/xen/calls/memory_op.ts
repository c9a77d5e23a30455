/** memory_op (Xen public/memory.h): the guest's memory, and pages that it shares with the hypervisor. */
import { sizeOf, type StructFields, type StructOf, type View } from "../../abi/layout.ts";
import { E820_ENTRY } from "../../abi/boot/e820.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import {
  MEMOP,
  XENMAPIDX_grant_table_status,
  XENMAPSPACE,
  XENMEM,
  XENMEM_RDM_ALL,
  XENMEMF,
} from "../../abi/xen/memory.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import type { Call } from "../call.ts";
import type { GrantTable } from "../grants.ts";
import { exists, isSelf, ofSelf } from "./domid.ts";
import { exchange } from "./exchange.ts";
import { frameAt, MAX_ORDER } from "./lists.ts";
import { type Handler, operations } from "./operations.ts";

const { EACCES, EDOM, EFAULT, EILSEQ, EINVAL, ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM, ESRCH } =
  XEN_ERRNO;

type Ops = typeof XENMEM;
type ViewOf<K extends keyof Ops> = Ops[K]["arg"] extends StructOf<infer F extends StructFields>
  ? View<F>
  : never;

/** Pages that one call works on at a time: a call of more is made again for the rest. */
const AT_A_TIME = 256;
/** A call that goes on has its extent in 26 bits. */
const EXTENTS_MAX = 2 ** 26 - 1;
/** Entries of an E820 map (E820MAX). */
const E820_MAX = 1024;

/** The extent from which a call goes on. */
const startOf = (call: Call): bigint => call.wide(0) >> BigInt(MEMOP.EXTENT_SHIFT);
/** The call is to be made again from an extent on. */
function again(call: Call, extent: number): number {
  const command = call.low(0) & MEMOP.CMD_MASK;
  call.setWide(0, BigInt(extent) << BigInt(MEMOP.EXTENT_SHIFT) | BigInt(command));
  call.again = true;
  return 0;
}

// --- reservations ---

/** The width of addresses in mem_flags. */
const ADDRESS_BITS = 0xff;
/** mem_flags that no allocation can satisfy: below an address of 4 KiB. */
function flagsMakeSense(flags: number): boolean {
  const bits = flags & ADDRESS_BITS;
  return bits === 0 || bits > 12;
}

/** What is done with one extent; false: no more of them is done. */
type Extent = (call: Call, list: bigint, n: number, order: number) => boolean;

const increase: Extent = ({ xen }, _list, _n, order) =>
  xen.physmap.allocate(2 ** order) !== undefined;

const decrease: Extent = (call, list, n, order) => {
  const first = frameAt(call, list, n), { physmap } = call.xen;
  if (first === undefined) return false;
  for (let page = 0n; page < 2n ** BigInt(order); page++) {
    if (physmap.giveBack(physmap.frameNumber(first + page)) < 0) return false;
  }
  return true;
};

const populate: Extent = (call, list, n, order) => {
  const first = frameAt(call, list, n);
  return first !== undefined && call.xen.physmap.populate(first, 2 ** order);
};

/** What these three say is how many extents are done, and no errno. */
function reservation(extent: Extent) {
  return (call: Call, args: ViewOf<"populate_physmap"> | undefined): number => {
    const start = Number(startOf(call));
    if (!args) return start;
    const count = Number(args.get("nr_extents")), order = args.get("extent_order");
    const flags = args.get("mem_flags");
    if (count > EXTENTS_MAX || start >= count || !flagsMakeSense(flags)) return start;
    if (!isSelf(call, args.get("domid")) || order > MAX_ORDER) return start;
    // Of itself, a guest can have no memory that comes when it is touched.
    if (extent === populate && flags & XENMEMF.populate_on_demand) return start;
    const list = args.get("extent_start"), end = start + Math.max(1, AT_A_TIME >> order);
    for (let n = start; n < count; n++) {
      if (n === end) return again(call, n);
      if (!extent(call, list, n, order)) return n;
    }
    return count;
  };
}

// --- the physical map ---

/** Machine frame of a page of the hypervisor's that a guest may map; negative: errno. */
function sharedFrame({ xen }: Call, space: number, index: bigint): number {
  if (space === XENMAPSPACE.shared_info) return index === 0n ? xen.sharedInfo / 4096 : -EINVAL;
  if (space !== XENMAPSPACE.grant_table) return -EINVAL;
  return grantFrame(xen.grants, Number(index));
}
function grantFrame(grants: GrantTable, index: number): number {
  if (index >= XENMAPIDX_grant_table_status) {
    return grants.status[index - XENMAPIDX_grant_table_status] ?? -EINVAL;
  }
  return grants.grow(index + 1) ? grants.shared[index] : -EINVAL;
}

/** Puts one page at a guest frame: 0 or an errno. */
function addOne(call: Call, space: number, index: bigint, guestFrame: bigint): number {
  const { physmap } = call.xen;
  // Maps of other domains' memory are domain 0's alone.
  if (space === XENMAPSPACE.gmfn_foreign) return -EPERM;
  if (physmap.frameNumber(guestFrame) < 0) return -EINVAL;
  if (space === XENMAPSPACE.gmfn) return physmap.move(index, guestFrame);
  const frame = sharedFrame(call, space, index);
  return frame < 0 ? frame : physmap.add(guestFrame, frame);
}

/** 0 if the caller may map such pages into a domain, else an errno. */
function mayMap(call: Call, domid: number, space: number): number {
  if (!exists(call, domid)) return -ESRCH;
  // Domain 0 has no map of its own, and devices' memory is its alone to map.
  if (domid === 0 || space === XENMAPSPACE.dev_mmio) return -EACCES;
  return ofSelf(call, domid);
}

function addRange(call: Call, args: ViewOf<"add_to_physmap">, start: number): number {
  const size = args.get("size"), from = args.get("idx"), to = args.get("gpfn");
  if (size < start) return -EILSEQ;
  if (size === start) return start ? -EILSEQ : 0;
  const last = 2n ** BigInt(call.width) - BigInt(size);
  if (to > last || from > last) return -EOVERFLOW;
  for (let n = start; n < size; n++) {
    if (n === start + AT_A_TIME) return again(call, n);
    const result = addOne(call, XENMAPSPACE.gmfn, from + BigInt(n), to + BigInt(n));
    if (result < 0) return result;
  }
  return 0;
}

function addBatch(call: Call, args: ViewOf<"add_to_physmap_batch">): number {
  const start = Number(startOf(call)), size = args.get("size"), space = args.get("space");
  if (space === XENMAPSPACE.gmfn_range) return -EOPNOTSUPP;
  const refused = mayMap(call, args.get("domid"), space);
  if (refused) return refused;
  if (size < start) return -EILSEQ;
  if (size === start) return start ? -EILSEQ : 0;
  const error = new DataView(new ArrayBuffer(4));
  for (let n = start; n < size; n++) {
    if (n === start + AT_A_TIME) return again(call, n);
    const index = frameAt(call, args.get("idxs"), n), to = frameAt(call, args.get("gpfns"), n);
    if (index === undefined || to === undefined) return -EFAULT;
    error.setInt32(0, addOne(call, space, index, to), true);
    const written = call.write(args.get("errs") + BigInt(4 * n), new Uint8Array(error.buffer));
    if (written < 0) return written;
  }
  return 0;
}

// --- maps of addresses ---

const E820_SIZE = sizeOf(E820_ENTRY, 64);

function memoryMap(call: Call, args: ViewOf<"memory_map">): number {
  const { memoryMap } = call.xen.physmap;
  const count = Math.min(args.get("nr_entries"), memoryMap.length / E820_SIZE);
  args.set("nr_entries", count);
  return call.write(args.get("buffer"), memoryMap.subarray(0, count * E820_SIZE));
}

function setMemoryMap(call: Call, args: ViewOf<"set_memory_map">): number {
  const count = args.get("map.nr_entries");
  if (count > E820_MAX) return -EINVAL;
  const refused = ofSelf(call, args.get("domid"));
  if (refused) return refused;
  const bytes = call.read(args.get("map.buffer"), count * E820_SIZE);
  if (!bytes) return -EFAULT;
  call.xen.physmap.memoryMap = bytes;
  return 0;
}

/** Counts of pages, of a domain that is the caller; 32-bit code sees no more than it can have as an int. */
const asked = (pages: (call: Call) => number) => (call: Call, args: ViewOf<"maximum_gpfn">) =>
  ofSelf(call, args.get("domid")) ||
  Math.min(pages(call), call.width === 32 ? 0x7fff_ffff : Infinity);

function podTarget(call: Call, args: ViewOf<"get_pod_target">): number {
  const domid = args.get("domid");
  if (!exists(call, domid)) return -ESRCH;
  return domid === 0 ? -EINVAL : -EPERM;
}

const rest = operations(XENMEM, {
  maximum_ram_page: ({ xen }) => xen.physmap.p2m.machine.size / 4096 - 1,
  current_reservation: asked(({ xen }) => xen.physmap.pages),
  maximum_reservation: asked(({ xen }) => xen.physmap.maxPages),
  maximum_gpfn: asked(({ xen }) => xen.physmap.highest),
  // There is no table that leads from machine frames to guest frames, in Xen's part of an address space;
  // 32-bit code asks for that of PV domains of 32 bits, which there are not.
  machphys_mfn_list: ({ width }, args) => {
    if (width === 32) return -EOPNOTSUPP;
    args.set("nr_extents", 0);
    return 0;
  },
  machphys_compat_mfn_list: () => -EOPNOTSUPP,
  add_to_physmap: (call, args) => {
    const space = args.get("space");
    // In batches alone.
    if (space === XENMAPSPACE.gmfn_foreign) return -ENOSYS;
    const refused = mayMap(call, args.get("domid"), space);
    if (refused) return refused;
    if (space === XENMAPSPACE.gmfn_range) return addRange(call, args, Number(startOf(call)));
    return addOne(call, space, args.get("idx"), args.get("gpfn"));
  },
  add_to_physmap_batch: addBatch,
  remove_from_physmap: (call, args) => {
    const domid = args.get("domid");
    if (!exists(call, domid)) return -ESRCH;
    if (domid === 0) return -EACCES;
    return ofSelf(call, domid) || call.xen.physmap.remove(args.get("gpfn"));
  },
  memory_map: memoryMap,
  set_memory_map: setMemoryMap,
  exchange,
  set_pod_target: podTarget,
  get_pod_target: podTarget,
  get_sharing_freed_pages: () => 0,
  get_sharing_shared_pages: () => 0,
  paging_op: () => -ENOSYS,
  access_op: (call, args) => {
    const domid = args.get("domid");
    // A remote one, by its number.
    if (domid === DOMID.SELF || !exists(call, domid)) return -ESRCH;
    return domid === 0 ? -EINVAL : -EPERM;
  },
  sharing_op: () => -ENOSYS,
  claim_pages: (call, args) => {
    const zero = ["extent_order", "mem_flags"] as const;
    if (args.get("extent_start") !== 0n || zero.some((field) => args.get(field))) return -EINVAL;
    const domid = args.get("domid");
    return domid !== DOMID.SELF && exists(call, domid) ? -EPERM : -EINVAL;
  },
  get_vnumainfo: (call, args) => {
    if (args.get("pad")) return -EINVAL;
    return ofSelf(call, args.get("domid")) || -EOPNOTSUPP;
  },
  // No IOMMU, no memory that is reserved for its devices.
  reserved_device_memory_map: (_, args) => {
    if (args.get("flags") & ~XENMEM_RDM_ALL) return -EINVAL;
    args.set("nr_entries", 0);
    return 0;
  },
}, { command: (call) => call.low(0) & MEMOP.CMD_MASK });

const RESERVATIONS = new Map([
  [XENMEM.increase_reservation.number as number, reservation(increase)],
  [XENMEM.decrease_reservation.number, reservation(decrease)],
  [XENMEM.populate_physmap.number, reservation(populate)],
]);
const numbers = (...names: readonly (keyof Ops)[]): ReadonlySet<number> =>
  new Set(names.map((name) => XENMEM[name].number));
/** They are about machine addresses, which a guest of a virtual machine has no use for. */
const MACHINE = numbers("machine_memory_map", "machphys_mapping");
/** They are done at once: an extent to go on from is none of theirs. */
const AT_ONCE = numbers(
  "maximum_ram_page",
  "current_reservation",
  "maximum_reservation",
  "maximum_gpfn",
  "remove_from_physmap",
  "exchange",
  "claim_pages",
  "get_vnumainfo",
);
/** These count extents in 16 bits. */
const SHORT = numbers("add_to_physmap", "add_to_physmap_batch");

export const memoryOp: Handler = (call) => {
  const number = call.low(0) & MEMOP.CMD_MASK, start = startOf(call);
  const reserve = RESERVATIONS.get(number);
  if (reserve) return reserve(call, call.get(XENMEM.populate_physmap.arg, call.wide(1)));
  // Before their arguments are looked at.
  if (number === XENMEM.acquire_resource.number) return -EACCES;
  if (MACHINE.has(number)) return -ENOSYS;
  if (number === XENMEM.claim_pages.number && call.width === 32) return -ENOSYS;
  if (number === XENMEM.memory_map.number && !call.xen.physmap.memoryMap.length) return -ENOSYS;
  if (start !== 0n && AT_ONCE.has(number)) return -EINVAL;
  if (start > 0xffffn && SHORT.has(number)) return -EDOM;
  return rest(call);
};
