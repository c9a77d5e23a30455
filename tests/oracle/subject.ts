/**
 * The machine that the oracle judges. It is set up here and nowhere else, so that the oracle itself
 * names nothing of the product.
 */
import type { Subject } from "./state.ts";

/** Opens the machine under test. */
export function openSubject(): Promise<Subject> {
  return Promise.reject(
    new Error(
      "tests/oracle/subject.ts: the machine (src/machine) is not connected to the oracle yet",
    ),
  );
}
