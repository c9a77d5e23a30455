/** Domains as a guest names them, and what it may do to them. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import type { Call } from "../call.ts";
import { refuse } from "../refusal.ts";

const { EPERM, ESRCH } = XEN_ERRNO;

/** It is the caller, by its number or as DOMID_SELF. */
export const isSelf = ({ xen }: Call, domid: number): boolean =>
  domid === DOMID.SELF || domid === xen.id;
/** There is such a domain. */
export const exists = (call: Call, domid: number): boolean =>
  isSelf(call, domid) || call.xen.domain.host.has(domid);
/** A guest has a say over itself alone: 0 or an errno. */
export function ofSelf(call: Call, domid: number): number {
  if (isSelf(call, domid)) return 0;
  return exists(call, domid)
    ? refuse(-EPERM, "another domain", domid)
    : refuse(-ESRCH, "no domain", domid);
}
