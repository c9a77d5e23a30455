/** Bitmaps of ports and MSRs that exit, from the neutral wishes. */

export function setBit(bytes: Uint8Array, bit: number): void {
  bytes[bit >> 3] |= 1 << (bit & 7);
}

/** One bit a port, 8 KBytes; both vendors have it so. */
export function portBitmap(
  wanted: "all" | "none" | readonly (readonly [number, number])[],
): Uint8Array {
  const bytes = new Uint8Array(8192).fill(wanted === "all" ? 0xff : 0);
  if (typeof wanted === "string") return bytes;
  for (const [first, last] of wanted) {
    if (!(first >= 0 && first <= last && last <= 0xffff)) {
      throw new RangeError(
        `ports: a range within 0 to 0xffff was expected, ${first}..${last} given`,
      );
    }
    for (let port = first; port <= last; port++) setBit(bytes, port);
  }
  return bytes;
}
