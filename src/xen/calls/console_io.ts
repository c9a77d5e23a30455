/**
 * console_io (Xen public/xen.h): the hypervisor's own console. A release build of Xen keeps it from all
 * domains but those that are to have it; a debug build lets everybody write.
 */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { CONSOLEIO } from "../../abi/xen/xen.ts";
import type { Handler } from "./operations.ts";

const { EFAULT, EPERM } = XEN_ERRNO;

/** Bytes that are written at a time: a call of more is made again for the rest. */
const AT_A_TIME = 0x1_0000;

export const consoleIo: Handler = (call) => {
  const { console } = call.xen, count = call.low(1), from = call.wide(2);
  if (!console || call.low(0) !== CONSOLEIO.write) return -EPERM;
  const now = Math.min(count, AT_A_TIME), bytes = call.read(from, now);
  if (!bytes) return -EFAULT;
  console.write(bytes);
  if (now === count) return 0;
  call.setWide(1, BigInt(count - now));
  call.setWide(2, from + BigInt(now));
  call.again = true;
  return 0;
};
