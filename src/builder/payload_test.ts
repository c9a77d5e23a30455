import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { crc32, gzipSync, zstdCompressSync } from "node:zlib";
import { BuilderError } from "./errors.ts";
import { decompressLz4Legacy } from "./lz4.ts";
import { extractPayload, findPayload } from "./payload.ts";
import { le32, tinyBzImage, tinyElf } from "./testing.ts";
import { decompressXz, undoX86 } from "./xz.ts";

const ELF = tinyElf({
  segments: [{ paddr: 0x100000, bytes: new Uint8Array(3000).map((_, i) => i >> 3) }],
});

/** A bzImage that carries `payload`; all but gzip get their size appended. */
function carrying(payload: Uint8Array, size?: number): Uint8Array {
  const code = new Uint8Array([...new Uint8Array(64), ...payload, ...(size ? le32(size) : [])]);
  return tinyBzImage(code, { payload_offset: 64, payload_length: code.length - 64 });
}

/** ELF as one LZMA2 chunk of stored bytes, in an XZ stream with CRC32 and the x86 filter. */
function storedXz(bytes: Uint8Array): Uint8Array {
  const size = bytes.length - 1;
  const lzma2 = [1, size >> 8, size & 255, ...bytes, 0];
  while (lzma2.length % 4) lzma2.push(0);
  const header = Uint8Array.of(3, 1, 4, 0, 0x21, 1, 0x16, 0, 0, 0, 0, 0);
  return new Uint8Array([
    ...[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 1],
    ...le32(crc32(Uint8Array.of(0, 1))),
    ...header,
    ...le32(crc32(header)),
    ...lzma2,
    ...le32(crc32(bytes)),
    ...new Uint8Array(24), // index and footer, which are not looked at
  ]);
}

/** One LZ4 legacy block of literals only. */
function storedLz4(bytes: Uint8Array): Uint8Array {
  const lengths = [0xf0];
  let rest = bytes.length - 15;
  for (; rest >= 255; rest -= 255) lengths.push(255);
  lengths.push(rest);
  const block = [...lengths, ...bytes];
  return new Uint8Array([...le32(0x184c2102, block.length), ...block]);
}

Deno.test("extractPayload() takes gzip, zstd, XZ, LZ4 and plain payloads", async () => {
  const cases: Record<string, Uint8Array> = {
    gzip: carrying(new Uint8Array(gzipSync(ELF))),
    zstd: carrying(new Uint8Array(zstdCompressSync(ELF)), ELF.length),
    xz: carrying(storedXz(ELF), ELF.length),
    lz4: carrying(storedLz4(ELF), ELF.length),
    none: carrying(ELF),
  };
  for (const [compression, image] of Object.entries(cases)) {
    assertEquals(findPayload(image, "k").compression, compression);
    assertEquals(await extractPayload(image, compression), ELF);
  }
});

Deno.test("extractPayload() tells a corrupt payload from a whole one", async () => {
  const xz = storedXz(ELF);
  xz[100] ^= 1;
  const broken = new Uint8Array(gzipSync(ELF));
  broken[40] ^= 4;
  const cases: [Uint8Array, string][] = [
    [carrying(xz, ELF.length), "XZ CRC32 is"],
    [carrying(broken), "gzip data is corrupt"],
    [carrying(storedLz4(ELF), ELF.length + 1), "bytes when decompressed"],
    [
      carrying(new Uint8Array(gzipSync(new Uint8Array(500)))),
      "decompressed payload is no ELF file",
    ],
    [carrying(new Uint8Array(100).fill(9)), "payload is a file that begins with 09 09 09 09"],
    [tinyBzImage(undefined, { payload_length: 1 << 20 }), "payload is 1048576 bytes at"],
    [new Uint8Array(1024), "setup header magic is missing"],
  ];
  for (const [image, message] of cases) {
    await assertRejects(() => extractPayload(image, "kernel"), BuilderError, message);
  }
});

Deno.test("decompressXz() refuses filters it does not have", async () => {
  const xz = storedXz(ELF);
  xz[14] = 7; // ARM
  new DataView(xz.buffer).setUint32(24, crc32(xz.subarray(12, 24)), true);
  await assertRejects(() => decompressXz(xz, ELF.length, "k"), BuilderError, "XZ filter is 0x7");
});

Deno.test("decompressLz4Legacy() copies overlapping matches, and refuses impossible ones", () => {
  const block = [0x1a, 0x61, 1, 0, 0x10, 0x62]; // "a", match of 14 one byte back, "b"
  const frame = (bytes: number[]) => new Uint8Array([...le32(0x184c2102, bytes.length), ...bytes]);
  const out = decompressLz4Legacy(frame(block), 16, "k");
  assertEquals(new TextDecoder().decode(out), "a".repeat(15) + "b");
  assertThrows(
    () => decompressLz4Legacy(frame([0x1a, 0x61, 2, 0]), 16, "k"),
    BuilderError,
    "a match 2 bytes back",
  );
});

Deno.test("undoX86() turns absolute call targets back into relative ones", () => {
  const bytes = new Uint8Array(32).fill(0x90);
  bytes.set([0xe8, ...le32(0x1000)], 8); // stored as target 0x1000 from position 8
  undoX86(bytes);
  assertEquals(new DataView(bytes.buffer).getInt32(9, true), 0x1000 - 13);
});
