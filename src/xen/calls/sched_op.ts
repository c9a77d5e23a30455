/** sched_op (Xen public/sched.h): a vCPU gives its turn away, waits, or ends its domain. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { SCHEDOP, SHUTDOWN } from "../../abi/xen/sched.ts";
import type { ShutdownReason } from "../domain.ts";
import { type Handler, operations } from "./operations.ts";

/** What a guest says it ends for, in our words. */
const REASONS: Readonly<Record<number, ShutdownReason>> = {
  [SHUTDOWN.poweroff]: "poweroff",
  [SHUTDOWN.reboot]: "reset",
  [SHUTDOWN.crash]: "crash",
  [SHUTDOWN.watchdog]: "crash",
};

export const schedOp: Handler = operations(SCHEDOP, {
  shutdown: ({ xen }, args) => {
    const reason = args.get("reason");
    const [name] = Object.entries(SHUTDOWN).find(([, number]) => number === reason) ?? [];
    if (name === undefined) return -XEN_ERRNO.EINVAL;
    xen.domain.end(REASONS[reason] ?? "exit", `SCHEDOP_shutdown: ${name}`);
    return 0;
  },
});
