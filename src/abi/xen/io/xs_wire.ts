/**
 * The wire protocol of xenstore: messages, and the ring page of a domain.
 * Source: Xen public/io/xs_wire.h.
 *
 * @module
 */
import { array, struct } from "../../layout.ts";

/** xsd_sockmsg.type. */
export const XS = {
  CONTROL: 0,
  DIRECTORY: 1,
  READ: 2,
  GET_PERMS: 3,
  WATCH: 4,
  UNWATCH: 5,
  TRANSACTION_START: 6,
  TRANSACTION_END: 7,
  INTRODUCE: 8,
  RELEASE: 9,
  GET_DOMAIN_PATH: 10,
  WRITE: 11,
  MKDIR: 12,
  RM: 13,
  SET_PERMS: 14,
  WATCH_EVENT: 15,
  ERROR: 16,
  IS_DOMAIN_INTRODUCED: 17,
  RESUME: 18,
  SET_TARGET: 19,
  RESET_WATCHES: 21,
  DIRECTORY_PART: 22,
  TYPE_COUNT: 23,
  INVALID: 0xffff,
} as const;
/** A message's name. */
export type XsMessageName = keyof typeof XS;

/** Names of errors that the store answers with: an ERROR's payload is one of them. */
export const XSD_ERRORS = [
  "EINVAL",
  "EACCES",
  "EEXIST",
  "EISDIR",
  "ENOENT",
  "ENOMEM",
  "ENOSPC",
  "EIO",
  "ENOTEMPTY",
  "ENOSYS",
  "EROFS",
  "EBUSY",
  "EAGAIN",
  "EISCONN",
  "E2BIG",
  "EPERM",
] as const;

/** Before each message; `len` bytes follow. */
export const XSD_SOCKMSG = struct("xsd_sockmsg", {
  type: "u32",
  /** Comes back in the answer. */
  req_id: "u32",
  /** 0: in no transaction. */
  tx_id: "u32",
  len: "u32",
});

/** Indices count on; the rings are taken modulo XENSTORE.RING_SIZE. */
export const XENSTORE_DOMAIN_INTERFACE = struct("xenstore_domain_interface", {
  req: array("u8", 1024),
  rsp: array("u8", 1024),
  req_cons: "u32",
  req_prod: "u32",
  rsp_cons: "u32",
  rsp_prod: "u32",
  server_features: "u32",
  connection: "u32",
  error: "u32",
});

/** Sizes, and values of the last three fields. */
export const XENSTORE = {
  RING_SIZE: 1024,
  /** A longer message breaks the connection. */
  PAYLOAD_MAX: 4096,
  ABS_PATH_MAX: 3072,
  REL_PATH_MAX: 2048,
  SERVER_FEATURE_RECONNECTION: 1,
  SERVER_FEATURE_ERROR: 2,
  CONNECTED: 0,
  RECONNECT: 1,
  ERROR_NONE: 0,
  ERROR_COMM: 1,
  ERROR_RINGIDX: 2,
  ERROR_PROTO: 3,
} as const;

/** Parts of a WATCH_EVENT's payload. */
export const XS_WATCH = { PATH: 0, TOKEN: 1 } as const;
