/** Hypercalls with sub-operations: which is called, its argument from the guest and back, by the ABI's table. */
import type { AbiType, StructFields, StructOf, View } from "../../abi/layout.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import type { Operation, Operations } from "../../abi/xen/operation.ts";
import type { Call } from "../call.ts";

const { EFAULT, ENOSYS, EPERM } = XEN_ERRNO;

/** What a hypercall does: its result, an errno if negative. */
export type Handler = (call: Call) => number;

/** The argument of an operation as its handler gets it: a structure's view, or nothing. */
type Argument<T> = T extends Operation<infer A extends AbiType | undefined>
  ? A extends StructOf<infer F extends StructFields> ? View<F> : undefined
  : never;
/** What each operation does; those that are left out do not exist here. */
export type OperationHandlers<T extends Operations> = {
  readonly [K in keyof T]?: (call: Call, argument: Argument<T[K]>) => number;
};

/**
 * A hypercall (cmd, argument): the argument is read before its handler and, where Xen writes fields of it
 * and the handler has not failed, written back.
 */
export function operations<T extends Operations>(
  table: T,
  handlers: OperationHandlers<T>,
  { command = (call) => call.low(0), at = 1 }: {
    /** Which operation is called; the first argument if not given. */
    readonly command?: (call: Call) => number;
    /** Which argument leads to the operation's own; the second if not given. */
    readonly at?: number;
  } = {},
): Handler {
  const rows: (Handler | undefined)[] = [];
  for (const [name, row] of Object.entries(table)) {
    rows[row.number] = handlerOf(row, handlers[name] as AnyHandler | undefined, at);
  }
  return (call) => {
    const number = command(call), handler = number < rows.length ? rows[number] : undefined;
    return handler ? handler(call) : -ENOSYS;
  };
}
function handlerOf(row: Operation, handler: AnyHandler | undefined, at: number): Handler {
  const { arg, out, inout, privileged } = row, answers = out.length + inout.length > 0;
  if (!handler) return () => privileged ? -EPERM : -ENOSYS;
  if (typeof arg !== "object" || arg.kind === "array") return (call) => handler(call, undefined);
  return (call) => {
    const view = call.get(arg as StructOf, call.wide(at));
    if (!view) return -EFAULT;
    const result = handler(call, view);
    if (result < 0 || !answers) return result;
    return call.put(view, call.wide(at)) || result;
  };
}
// deno-lint-ignore no-explicit-any
type AnyHandler = (call: Call, argument: any) => number;
