/**
 * Reads one file out of a tar stream and stops reading there.
 *
 * @param wanted Which path to take; paths are given without a leading `./`.
 * @returns The path and bytes of the first match, or undefined when the stream ends before.
 */
export async function firstFile(
  stream: ReadableStream<Uint8Array>,
  wanted: (path: string) => boolean,
): Promise<{ path: string; bytes: Uint8Array } | undefined> {
  const reader = new ExactReader(stream.getReader());
  let longName: string | undefined;
  try {
    for (;;) {
      const header = await reader.take(512);
      if (!header || header.every((b) => b === 0)) return undefined;
      const size = parseInt(text(header, 124, 12), 8) || 0;
      const type = String.fromCharCode(header[156]);
      const body = Math.ceil(size / 512) * 512;
      if (type === "L") { // GNU long name, for the entry that follows
        const name = await reader.take(body);
        longName = name && text(name, 0, size);
        continue;
      }
      const prefix = text(header, 345, 155);
      const path = (longName ?? (prefix ? `${prefix}/` : "") + text(header, 0, 100))
        .replace(/^\.\//, "");
      longName = undefined;
      if ((type === "0" || type === "\0") && wanted(path)) {
        const bytes = await reader.take(body);
        return bytes && { path, bytes: bytes.subarray(0, size) };
      }
      if (!await reader.skip(body)) return undefined;
    }
  } finally {
    await reader.cancel();
  }
}

function text(bytes: Uint8Array, at: number, length: number): string {
  const end = bytes.subarray(at, at + length).indexOf(0);
  return new TextDecoder().decode(bytes.subarray(at, at + (end < 0 ? length : end)));
}

/** Fixed-length reads over a stream of chunks. */
class ExactReader {
  #reader: ReadableStreamDefaultReader<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array();

  constructor(reader: ReadableStreamDefaultReader<Uint8Array>) {
    this.#reader = reader;
  }

  /** The next `length` bytes, or undefined when the stream ends first. */
  async take(length: number): Promise<Uint8Array | undefined> {
    const out = new Uint8Array(length);
    const done = await this.#each(length, (part, at) => out.set(part, at));
    return done ? out : undefined;
  }

  async skip(length: number): Promise<boolean> {
    return await this.#each(length, () => {});
  }

  async #each(length: number, use: (part: Uint8Array, at: number) => void): Promise<boolean> {
    let at = 0;
    while (at < length) {
      if (this.#chunk.length === 0) {
        const { done, value } = await this.#reader.read();
        if (done) return false;
        this.#chunk = value;
        continue;
      }
      const part = this.#chunk.subarray(0, length - at);
      use(part, at);
      at += part.length;
      this.#chunk = this.#chunk.subarray(part.length);
    }
    return true;
  }

  async cancel(): Promise<void> {
    await this.#reader.cancel().catch(() => {});
  }
}
