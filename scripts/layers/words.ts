/**
 * What may not be said in a place: the host's clock or randomness below `xen/world`, the length of
 * memory as an array has it.
 *
 * @module
 */
import type { Source, Violation } from "./source.ts";

const DETERMINISTIC = ["src/machine/", "src/hvm/", "src/xen/", "src/devices/", "src/dom0/"];
const HOST_INPUT =
  /\b(Date\.now|new Date\(\)|performance\.now|Math\.random|getRandomValues|randomUUID|setTimeout|setInterval)\b/;
/** The one door for what comes from outside. */
const WORLD = "src/xen/world";

/** Beyond 2 GiB it comes out negative in optimized code: Machine.size says why. */
const RAM_LENGTH = /\bram\.length\b/;

/** Lines of a file that say what they may not. */
export function checkWords({ file, code }: Source): Violation[] {
  const found: Violation[] = [];
  const deterministic = DETERMINISTIC.some((folder) => file.startsWith(folder)) &&
    !file.startsWith(WORLD);
  for (const [i, text] of code.split("\n").entries()) {
    const report = (message: string) => found.push({ file, line: i + 1, message });
    if (file.startsWith("src/") && RAM_LENGTH.test(text)) {
      report("the length of memory is machine.size");
    }
    const host = deterministic ? text.match(HOST_INPUT) : null;
    if (host) report(`${host[1]} is not guest time or seeded; it enters through ${WORLD}`);
  }
  return found;
}
