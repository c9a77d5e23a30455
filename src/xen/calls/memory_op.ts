/** memory_op (Xen public/memory.h): the guest's memory, and pages that it shares with the hypervisor. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { MEMOP, XENMAPIDX_grant_table_status, XENMAPSPACE, XENMEM } from "../../abi/xen/memory.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import type { GrantTable } from "../grants.ts";
import type { Call } from "../call.ts";
import { type Handler, operations } from "./operations.ts";

const { EINVAL, ENOSYS, EPERM, ESRCH } = XEN_ERRNO;

/** 0 if the caller names itself, else an errno. */
function ofSelf({ xen }: Call, domid: number): number {
  if (domid === DOMID.SELF || domid === xen.id) return 0;
  return xen.channelsOf(domid) ? -EPERM : -ESRCH;
}

/** Machine frame of a page of the hypervisor's that a guest may map; negative: errno. */
function sharedFrame({ xen }: Call, space: number, index: bigint): number {
  if (space === XENMAPSPACE.shared_info) return index === 0n ? xen.sharedInfo / 4096 : -EINVAL;
  if (space === XENMAPSPACE.grant_table) return grantFrame(xen.grants, Number(index));
  return -ENOSYS;
}
function grantFrame(grants: GrantTable, index: number): number {
  if (index >= XENMAPIDX_grant_table_status) {
    return grants.status[index - XENMAPIDX_grant_table_status] ?? -EINVAL;
  }
  return grants.grow(index + 1) ? grants.shared[index] : -EINVAL;
}

export const memoryOp: Handler = operations(XENMEM, {
  add_to_physmap: (call, args) => {
    const refused = ofSelf(call, args.get("domid"));
    if (refused) return refused;
    const frame = sharedFrame(call, args.get("space"), args.get("idx"));
    if (frame < 0) return frame;
    return call.xen.physmap.add(args.get("gpfn"), frame);
  },
  remove_from_physmap: (call, args) =>
    ofSelf(call, args.get("domid")) || call.xen.physmap.remove(args.get("gpfn")),
}, { command: (call) => call.low(0) & MEMOP.CMD_MASK });
