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
 * A file's bytes.
 *
 * @param what what it is for, as the message names it
 * @throws {Error} naming the file, when it cannot be read, is no regular file or has more than `most`
 *   bytes; then nothing of it has been read
 */
export function readFile(what: string, path: string, most: number): Uint8Array<ArrayBuffer> {
  const tried = <T>(act: () => T): T => {
    try {
      return act();
    } catch (error) {
      const reason = error instanceof Deno.errors.NotFound
        ? "there is no such file"
        : brief((error as Error).message);
      throw new Error(`${what}: cannot read ${brief(path)}: ${reason}`, { cause: error });
    }
  };
  const { isFile, isDirectory, size } = tried(() => Deno.statSync(path));
  if (!isFile) {
    const kind = isDirectory ? "a folder" : "a device or a pipe";
    throw new Error(`${what}: a file was expected, ${brief(path)} is ${kind}`);
  }
  if (size > most) {
    throw new RangeError(
      `${what}: at most ${sizeText(most)} was expected, ${brief(path)} has ${sizeText(size)}`,
    );
  }
  return tried(() => Deno.readFileSync(path));
}
