/** vm_assist (Xen public/xen.h): what a guest may switch of how Xen treats it. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { VMASST_CMD, VMASST_TYPE } from "../../abi/xen/xen.ts";
import type { Handler } from "./operations.ts";

export const vmAssist: Handler = (call) => {
  const command = call.low(0), type = call.low(1), { assists } = call.xen;
  // The others are for paravirtual processors.
  if (type !== VMASST_TYPE.runstate_update_flag) return -XEN_ERRNO.EINVAL;
  if (command === VMASST_CMD.enable) assists.add(type);
  else if (command === VMASST_CMD.disable) assists.delete(type);
  else return -XEN_ERRNO.ENOSYS;
  return 0;
};
