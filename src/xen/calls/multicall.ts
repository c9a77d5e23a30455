/** multicall (Xen public/xen.h): several hypercalls made by one. */
import { sizeOf, type View } from "../../abi/layout.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { MULTICALL_ENTRY } from "../../abi/xen/xen.ts";
import type { Call } from "../call.ts";
import type { Handler } from "./operations.ts";

const { EFAULT, EINVAL } = XEN_ERRNO;

/** Calls that are made at a time: a multicall of more is made again for the rest. */
const AT_A_TIME = 64;
const ARGUMENTS = 6;

type Entry = View<typeof MULTICALL_ENTRY.fields>;

/** Whether whoever made the call is to have no further turn now: it waits, gives way, or ends. */
const leaves = ({ leaves, xen }: Call): boolean =>
  leaves !== undefined || xen.domain.ending !== undefined;

/** Makes one of them: its result; undefined: it is to be made again, with the arguments it has now. */
function make(call: Call, entry: Entry, dispatch: Dispatch): number | undefined {
  const args = Array.from({ length: ARGUMENTS }, (_, n) => entry.get("args", n));
  const result = call.within(args, () => dispatch(call, entry.get("op")));
  if (!call.again) return result;
  call.again = false;
  args.forEach((value, n) => entry.set("args", value, n));
  return undefined;
}

/** A hypercall by its number. */
type Dispatch = (call: Call, number: bigint) => number;

/** @param dispatch makes a hypercall by its number */
export function multicallOf(dispatch: Dispatch): Handler {
  return (call) => {
    if (call.isWithin) return -EINVAL;
    const list = call.wide(0), count = call.low(1);
    /** The rest is made when the vCPU comes here again. */
    const goOn = (from: number) => {
      call.setWide(0, list + BigInt(from * sizeOf(MULTICALL_ENTRY, call.width)));
      call.setWide(1, BigInt(count - from));
      call.again = true;
      return 0;
    };
    for (let n = 0; n < count; n++) {
      if (n === AT_A_TIME || (n > 0 && leaves(call))) return goOn(n);
      const entry = call.get(MULTICALL_ENTRY, list, n);
      if (!entry) return -EFAULT;
      const result = make(call, entry, dispatch);
      if (result !== undefined) entry.set("result", result);
      const written = result === undefined
        ? call.put(entry, list, n)
        : call.putField(entry, "result", list, n);
      if (written < 0) return written;
      if (result === undefined) return goOn(n);
    }
    return 0;
  };
}
