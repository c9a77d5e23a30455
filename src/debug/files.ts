/**
 * Files that the user names: looked at before they are read, so that what cannot be one of them (a
 * folder, a device without end, a disk image by mistake) is refused at once.
 *
 * @module
 */
import { brief, sizeText } from "../builder/errors.ts";

/** Most bytes of a kernel or of a file of symbols: a kernel with all its debugging information has less. */
export const KERNEL_MAX: number = 2 ** 30;
/** Most bytes of a configuration or of a file of commands. */
export const TEXT_MAX: number = 2 ** 20;

/**
 * Refuses what is no regular file of at most `most` bytes.
 *
 * @param what what it is for, as the message names it
 */
function check(what: string, path: string, info: Deno.FileInfo, most: number): void {
  if (!info.isFile) {
    throw new Error(
      `${what}: a file was expected, ${brief(path)} is ${
        info.isDirectory ? "a folder" : "a device or a pipe"
      }`,
    );
  }
  if (info.size > most) {
    throw new RangeError(
      `${what}: at most ${sizeText(most)} was expected, ${brief(path)} has ${sizeText(info.size)}`,
    );
  }
}

function cannotRead(what: string, path: string, error: unknown): Error {
  const reason = error instanceof Deno.errors.NotFound
    ? "there is no such file"
    : brief((error as Error).message);
  return new Error(`${what}: cannot read ${brief(path)}: ${reason}`, { cause: error });
}

/**
 * A file's bytes.
 *
 * @throws {Error} naming the file, when it cannot be read, is no regular file or has more than `most`
 *   bytes; then nothing of it has been read
 */
export async function readFile(
  what: string,
  path: string,
  most: number,
): Promise<Uint8Array<ArrayBuffer>> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    throw cannotRead(what, path, error);
  }
  check(what, path, info, most);
  return await Deno.readFile(path).catch((error) => {
    throw cannotRead(what, path, error);
  });
}

/** As {@linkcode readFile}, without waiting. */
export function readFileSync(what: string, path: string, most: number): Uint8Array<ArrayBuffer> {
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
  } catch (error) {
    throw cannotRead(what, path, error);
  }
  check(what, path, info, most);
  try {
    return Deno.readFileSync(path);
  } catch (error) {
    throw cannotRead(what, path, error);
  }
}
