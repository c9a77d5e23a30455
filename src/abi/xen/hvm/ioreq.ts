/**
 * Requests of a vCPU to a device model: the shared page, and the ring of those that nobody waits for.
 * Source: Xen public/hvm/ioreq.h.
 *
 * @module
 */
import { array, bits, struct } from "../../layout.ts";

/** ioreq.dir. */
export const IOREQ = { READ: 1, WRITE: 0 } as const;
/** ioreq.state. */
export const STATE = {
  IOREQ_NONE: 0,
  IOREQ_READY: 1,
  IOREQ_INPROCESS: 2,
  IORESP_READY: 3,
} as const;
/** ioreq.type; COPY is memory-mapped. */
export const IOREQ_TYPE = { PIO: 0, COPY: 1, PCI_CONFIG: 2, TIMEOFFSET: 7, INVALIDATE: 8 } as const;

/** `bits`: the fields that C gives four, one, one and one bits. */
const ioreq = struct("ioreq", {
  addr: "u64",
  /** The value, or with data_is_ptr the guest-physical address of values. */
  data: "u64",
  /** Repetitions. */
  count: "u32",
  /** Bytes of one. */
  size: "u32",
  /** Port of the event channel between vCPU and model. */
  vp_eport: "u32",
  _pad0: "u16",
  bits: bits("u8", { state: 4, data_is_ptr: 1, dir: 1, df: 1, _pad1: 1 }),
  type: "u8",
});

/** vCPU n's request stands at n; a page holds 128. */
export const SHARED_IOPAGE = struct("shared_iopage", { vcpu_ioreq: array(ioreq, 1) });

/** Size is 1, 2, 4 or 8 bytes as 0 to 3; 8 takes two entries. */
const buf_ioreq = struct("buf_ioreq", {
  bits: bits("u32", { type: 8, pad: 1, dir: 1, size: 2, addr: 20 }),
  data: "u32",
});

export const IOREQ_BUFFER_SLOT_NUM = 511;
/** Pointers count on and are taken modulo the slots. */
export const BUFFERED_IOPAGE = struct("buffered_iopage", {
  read_pointer: "u32",
  write_pointer: "u32",
  buf_ioreq: array(buf_ioreq, IOREQ_BUFFER_SLOT_NUM),
});
