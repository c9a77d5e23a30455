/**
 * Bytes that wait, as plain bytes: a state holds them as they are, one byte a byte.
 *
 * @module
 */

/** Where the bytes in use of a buffer of ours end: behind that it may grow in place. */
const ends = new WeakMap<ArrayBufferLike, number>();

/** `queue` with `bytes` behind it; the old one stays what it was. */
export function appended(queue: Uint8Array, bytes: Uint8Array): Uint8Array {
  const { buffer, byteOffset } = queue;
  const end = byteOffset + queue.length, length = queue.length + bytes.length;
  if (ends.get(buffer) === end && end + bytes.length <= buffer.byteLength) {
    const whole = new Uint8Array(buffer, byteOffset, length);
    whole.set(bytes, queue.length);
    ends.set(buffer, end + bytes.length);
    return whole;
  }
  const room = new Uint8Array(Math.max(256, length + (length >> 2)));
  room.set(queue);
  room.set(bytes, queue.length);
  ends.set(room.buffer, length);
  return room.subarray(0, length);
}
