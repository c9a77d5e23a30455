/**
 * What Xen says about itself.
 * Source: Xen public/version.h.
 *
 * @module
 */
import { array, struct } from "../layout.ts";
import { op, type Operations } from "./operation.ts";

const xen_compile_info = struct("xen_compile_info", {
  compiler: array("u8", 64),
  compile_by: array("u8", 16),
  compile_domain: array("u8", 32),
  compile_date: array("u8", 32),
});
/** Start of the hypervisor's part of the address space. */
const xen_platform_parameters = struct("xen_platform_parameters", { virt_start: "ulong" });
/** Feature bits (features.ts), 32 to a submap. */
const xen_feature_info = struct("xen_feature_info", { submap_idx: "u32", submap: "u32" });
/** `buf` follows it, `len` bytes at most. */
export const XEN_BUILD_ID = struct("xen_build_id", { len: "u32" });

/** xen_version(cmd, argument). `version` is major << 16 | minor; `pagesize` the bytes of a page. */
export const XENVER = {
  version: op(0),
  extraversion: op(1, array("u8", 16), { direction: "out" }),
  compile_info: op(2, xen_compile_info, {
    out: ["compiler", "compile_by", "compile_domain", "compile_date"],
  }),
  capabilities: op(3, array("u8", 1024), { direction: "out" }),
  changeset: op(4, array("u8", 64), { direction: "out" }),
  platform_parameters: op(5, xen_platform_parameters, { out: ["virt_start"] }),
  get_features: op(6, xen_feature_info, { out: ["submap"] }),
  pagesize: op(7),
  guest_handle: op(8, array("u8", 16), { direction: "out" }),
  commandline: op(9, array("u8", 1024), { direction: "out" }),
  build_id: op(10, XEN_BUILD_ID),
} as const satisfies Operations;
