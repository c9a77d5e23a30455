/**
 * The hash of a guest.
 *
 * @module
 */
import { hashBytes, hashText, placed, plus, ZERO } from "../../machine/hash.ts";
import { encodePlain } from "../../machine/record.ts";
import type { Subject } from "../subject.ts";
import { registerLines } from "./visible.ts";
import { FrameHashes } from "../../machine/frame_hashes.ts";

/** The hash of a guest, whatever runs it: its registers, memory and devices. */
export function domainHash({ inner, vcpus, board }: Subject): string {
  const hashes = FrameHashes.of(inner.host.machine);
  hashes.update();
  let sum = ZERO;
  for (const { id, file } of vcpus) {
    const lines = registerLines(file).join("\n");
    sum = plus(sum, hashBytes(new TextEncoder().encode(id ? `vCPU ${id}\n${lines}` : lines)));
  }
  for (let gpa = 0; gpa < inner.memory.size; gpa += 4096) {
    const machine = inner.memory.machineAddress(gpa);
    if (machine >= 0) sum = plus(sum, placed(gpa / 4096, hashes.frame(machine / 4096)));
  }
  for (const { name, state } of board.bus.devices) {
    sum = plus(sum, hashBytes(encodePlain([name, state])));
  }
  return hashText(sum);
}
