/** Hypercalls of domain 0 and its tools: how everybody else is refused. */
import { sizeOf, struct, type StructFields, type StructOf, View } from "../../abi/layout.ts";
import { DOMCTL, XEN_DOMCTL, XEN_DOMCTL_INTERFACE_VERSION } from "../../abi/xen/domctl.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { PLATFORM_OP, XENPF_INTERFACE_VERSION } from "../../abi/xen/platform.ts";
import { SYSCTL, XEN_SYSCTL_INTERFACE_VERSION } from "../../abi/xen/sysctl.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import { XEN_DM_OP_BUF } from "../../abi/xen/hypercalls.ts";
import type { Call } from "../call.ts";
import { exists } from "./domid.ts";
import type { Handler } from "./operations.ts";

const { E2BIG, EACCES, EFAULT, EINVAL, EOPNOTSUPP, EPERM, ESRCH } = XEN_ERRNO;

/** What the argument of each begins with. */
const HEAD = struct("", { cmd: "u32", interface_version: "u32" });

/** The argument is read, and its version looked at, before anything is refused. */
function versioned<F extends StructFields>(
  type: StructOf<F>,
  version: number,
  wrong: number,
  then: (call: Call, args: View<F>) => number,
): Handler {
  return (call) => {
    const args = call.get(type, call.wide(0));
    if (!args) return -EFAULT;
    const given = new View(HEAD, call.width, args.raw).get("interface_version");
    return given === version ? then(call, args) : -wrong;
  };
}
const refused = () => -EPERM;

export const platformOp: Handler = versioned(
  PLATFORM_OP,
  XENPF_INTERFACE_VERSION,
  EACCES,
  refused,
);
export const sysctl: Handler = versioned(SYSCTL, XEN_SYSCTL_INTERFACE_VERSION, EACCES, refused);

/** Commands that name no domain. */
const { createdomain, gdbsx_guestmemio, test_assign_device, vm_event_op } = XEN_DOMCTL;
const OF_NONE: ReadonlySet<number> = new Set([createdomain, gdbsx_guestmemio]);
const MAYBE_OF_NONE: ReadonlySet<number> = new Set([test_assign_device, vm_event_op]);

export const domctl: Handler = versioned(
  DOMCTL,
  XEN_DOMCTL_INTERFACE_VERSION,
  EACCES,
  (call, args) => {
    const command = args.get("cmd"), domid = args.get("domain");
    const none = OF_NONE.has(command) || (MAYBE_OF_NONE.has(command) && domid === DOMID.INVALID);
    return none || isThere(call, domid) ? -EPERM : -ESRCH;
  },
);
/** By its number alone. */
const isThere = (call: Call, domid: number): boolean => domid !== DOMID.SELF && exists(call, domid);

/** How a domctl on paging goes on. */
export const pagingDomctl: Handler = versioned(
  DOMCTL,
  XEN_DOMCTL_INTERFACE_VERSION,
  EOPNOTSUPP,
  (call, args) => {
    if (args.get("cmd") !== XEN_DOMCTL.shadow_op) return -EOPNOTSUPP;
    return isThere(call, args.get("domain")) ? -EPERM : -ESRCH;
  },
);

/** Buffers that it takes at most. */
const DM_OP_BUFFERS = 2;
/** A device model asks about another domain, which is in a virtual machine. */
export const dmOp: Handler = (call) => {
  const domid = call.low(0) & 0xffff, count = call.low(1);
  if (count > DM_OP_BUFFERS) return -E2BIG;
  if (!call.read(call.wide(2), count * sizeOf(XEN_DM_OP_BUF, call.width))) return -EFAULT;
  if (!isThere(call, domid)) return -ESRCH;
  return domid === 0 ? -EINVAL : -EPERM;
};

export const hypfsOp: Handler = refused;
/** Neither is switched on. */
export const argoOp: Handler = () => -EOPNOTSUPP;
export const xenpmuOp: Handler = () => -EOPNOTSUPP;
