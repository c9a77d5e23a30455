/** xen_version: what Xen says about itself (Xen public/version.h). */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { XENFEAT, XENFEAT_NR_SUBMAPS } from "../../abi/xen/features.ts";
import { XENVER } from "../../abi/xen/version.ts";
import type { Call } from "../call.ts";
import { type Handler, operations } from "./operations.ts";

/** The version whose interface this is. */
export const XEN_VERSION = { major: 4, minor: 17, extra: ".xvm" } as const;

/** What guests of hardware virtual machines find. */
const FEATURES = [
  XENFEAT.writable_page_tables,
  XENFEAT.auto_translated_physmap,
  XENFEAT.hvm_callback_vector,
  XENFEAT.hvm_safe_pvclock,
  XENFEAT.memory_op_vnode_supported,
  XENFEAT.not_direct_mapped,
].reduce((bits: number, bit) => bits | 1 << bit, 0) >>> 0;

const CAPABILITIES = "hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ";

/** In place of the hypervisor's command line. */
const DENIED = "<denied>";

/** Where Xen's own part of a 64-bit address space begins (HYPERVISOR_VIRT_START); in 32 bits it has none. */
const VIRT_START = 0xffff_8000_0000_0000n;

/** Text in an array of bytes of a fixed length, NUL at its end. */
function text(of: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(new TextEncoder().encode(of).subarray(0, length - 1));
  return bytes;
}
const putText = (call: Call, of: string, length: number) =>
  call.write(call.wide(1), text(of, length));

const ops = operations(XENVER, {
  version: () => XEN_VERSION.major << 16 | XEN_VERSION.minor,
  extraversion: (call) => putText(call, XEN_VERSION.extra, 16),
  compile_info: (_, view) => {
    const facts = {
      compiler: "TypeScript",
      compile_by: "xvm",
      compile_domain: "",
      compile_date: "",
    };
    for (const [field, value] of Object.entries(facts)) {
      const bytes = view.bytes(field as keyof typeof facts);
      bytes.set(text(value, bytes.length));
    }
    return 0;
  },
  capabilities: (call) => putText(call, CAPABILITIES, 1024),
  changeset: (call) => putText(call, "", 64),
  platform_parameters: (call, view) => {
    view.set("virt_start", call.width === 64 ? VIRT_START : 0n);
    return 0;
  },
  get_features: (_, view) => {
    const map = view.get("submap_idx");
    if (map >= XENFEAT_NR_SUBMAPS) return -XEN_ERRNO.EINVAL;
    view.set("submap", FEATURES);
    return 0;
  },
  pagesize: (call) => call.wide(1) ? -XEN_ERRNO.EINVAL : 4096,
  guest_handle: (call) => call.write(call.wide(1), call.xen.handle),
  // What else the guest has there stays.
  commandline: (call) => putText(call, DENIED, DENIED.length + 1),
});

export const xenVersion: Handler = (call) =>
  // Whatever its argument is.
  call.low(0) === XENVER.build_id.number ? -XEN_ERRNO.EPERM : ops(call);
