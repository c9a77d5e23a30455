/**
 * XenStore's messages (io/xs_wire.h): a header, and a payload behind it.
 *
 * @module
 */
import { sizeOf } from "../abi/layout.ts";
import { XSD_SOCKMSG } from "../abi/xen/io/xs_wire.ts";

/** A message from or to a domain. */
export interface XsMessage {
  readonly type: number;
  readonly request: number;
  readonly transaction: number;
  readonly payload: Uint8Array;
}

/** Bytes of a header: type, request, transaction, length of the payload. */
export const XS_HEADER: number = sizeOf(XSD_SOCKMSG, 32);

const wordOf = (bytes: Uint8Array, n: number): number =>
  (bytes[4 * n] | bytes[4 * n + 1] << 8 | bytes[4 * n + 2] << 16 | bytes[4 * n + 3] << 24) >>> 0;

/** The length of the payload that a header announces. */
export const announcedLength = (header: Uint8Array): number => wordOf(header, 3);

export function encodeMessage({ type, request, transaction, payload }: XsMessage): Uint8Array {
  const bytes = new Uint8Array(XS_HEADER + payload.length), view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, request, true);
  view.setUint32(8, transaction, true);
  view.setUint32(12, payload.length, true);
  bytes.set(payload, XS_HEADER);
  return bytes;
}

export const decodeMessage = (bytes: Uint8Array): XsMessage => ({
  type: wordOf(bytes, 0),
  request: wordOf(bytes, 1),
  transaction: wordOf(bytes, 2),
  payload: bytes.subarray(XS_HEADER),
});
