/**
 * Errors that hypercalls return, negative, in the result register.
 * Source: Xen public/errno.h.
 *
 * @module
 */

/** Numbers by name. EINTR and ERESTART are Xen's own and never leave it. */
export const XEN_ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  ECHILD: 10,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOSPC: 28,
  EROFS: 30,
  EMLINK: 31,
  EDOM: 33,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOLCK: 37,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ENODATA: 61,
  ETIME: 62,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EILSEQ: 84,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
} as const;
/** An error's name. */
export type XenErrno = keyof typeof XEN_ERRNO;

/** What each says when Xen answers with it. */
export const XEN_ERRNO_MEANING: Readonly<Record<XenErrno, string>> = {
  EPERM: "the caller has not the privilege",
  ENOENT: "there is no such thing",
  ESRCH: "there is no such domain",
  EIO: "input or output failed",
  ENXIO: "there is no such device or address",
  E2BIG: "the argument is too long",
  ENOEXEC: "not a format that can be run",
  EBADF: "not an open handle",
  ECHILD: "there is no child",
  EAGAIN: "not now: try again",
  ENOMEM: "memory is used up",
  EACCES: "access is not permitted",
  EFAULT: "an address that cannot be read or written",
  EBUSY: "in use",
  EEXIST: "there is one already",
  EXDEV: "a link across devices",
  ENODEV: "there is no such device, or it cannot do this",
  ENOTDIR: "not a directory",
  EISDIR: "a directory",
  EINVAL: "an argument has a value that is not allowed",
  ENFILE: "the host's table is full",
  EMFILE: "the domain's table is full",
  ENOSPC: "no space is left",
  EROFS: "may only be read",
  EMLINK: "too many links",
  EDOM: "outside the function's domain",
  ERANGE: "too large, or too small",
  EDEADLK: "would wait for itself",
  ENAMETOOLONG: "the name is too long",
  ENOLCK: "no lock is free",
  ENOSYS: "there is no such operation",
  ENOTEMPTY: "not empty",
  ENODATA: "there is no data",
  ETIME: "the time has passed",
  EBADMSG: "not a message of this kind",
  EOVERFLOW: "the value does not fit its type",
  EILSEQ: "bytes that make no character",
  ENOTSOCK: "not a socket",
  EMSGSIZE: "the message is too long",
  EOPNOTSUPP: "the operation is known and not supported here",
  EADDRINUSE: "the address is in use",
  EADDRNOTAVAIL: "the address cannot be had",
  ENOBUFS: "no buffer is free",
  EISCONN: "connected already",
  ENOTCONN: "not connected",
  ETIMEDOUT: "no answer came in time",
  ECONNREFUSED: "the other side refused",
};

const names = new Map<number, XenErrno>(
  Object.entries(XEN_ERRNO).map(([name, number]) => [number, name as XenErrno]),
);

/** The name of a result: `ENOTCONN` of -107; undefined for what is no error. */
export const errnoName = (result: number | bigint): XenErrno | undefined =>
  names.get(-Number(result));
