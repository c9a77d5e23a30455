/** mmuext_op: page tables of paravirtual domains, which a guest of a virtual machine has no say over. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import { exists } from "./domid.ts";
import type { Handler } from "./operations.ts";

const { EINVAL, EPERM, ESRCH } = XEN_ERRNO;

/** What counts as paravirtual: domain 0, and the owners of devices' memory and of Xen's own. */
const PARAVIRTUAL: ReadonlySet<number> = new Set([0, DOMID.IO, DOMID.XEN]);

export const mmuextOp: Handler = (call) => {
  const domid = call.low(3) & 0xffff;
  if (domid === DOMID.SELF) return -EINVAL;
  if (PARAVIRTUAL.has(domid)) return -EPERM;
  // It has no number of its own to name itself by.
  return domid !== call.xen.id && exists(call, domid) ? -EINVAL : -ESRCH;
};
