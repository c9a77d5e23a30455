/**
 * Operations on the host, for domain 0 alone: names and numbers.
 * Source: Xen public/platform.h of 4.17.
 *
 * @module
 */
import { array, group, struct } from "../layout.ts";

/** Its argument: what each command has of its own lies in `u`. */
export const PLATFORM_OP = struct("xen_platform_op", {
  cmd: "u32",
  interface_version: "u32",
  u: group({ pad: array("u8", 128) }),
});

/** platform_op(argument): `cmd` is the argument's first field. */
export const XENPF = {
  settime32: 17,
  add_memtype: 31,
  del_memtype: 32,
  read_memtype: 33,
  microcode_update: 35,
  platform_quirk: 39,
  get_cpu_version: 48,
  efi_runtime_call: 49,
  firmware_info: 50,
  enter_acpi_sleep: 51,
  change_freq: 52,
  getidletime: 53,
  set_processor_pminfo: 54,
  get_cpuinfo: 55,
  cpu_online: 56,
  cpu_offline: 57,
  cpu_hotadd: 58,
  mem_hotadd: 59,
  core_parking: 60,
  resource_op: 61,
  settime64: 62,
  get_symbol: 63,
} as const;
/** What `interface_version`, the second field, has to be. */
export const XENPF_INTERFACE_VERSION = 0x0300_0001;
