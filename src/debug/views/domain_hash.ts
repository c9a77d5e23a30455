/**
 * The hash of a guest.
 *
 * @module
 */
import { type Hash, hashBytes, hashText, placed, plus } from "../../machine/hash.ts";
import { encodePlain } from "../../machine/record.ts";
import type { Subject } from "../subject.ts";
import { registerLines } from "./visible.ts";
import { FrameHashes } from "../../machine/frame_hashes.ts";

/** The hash of a guest, whatever runs it: its registers, memory and devices. */
export function domainHash({ inner, vcpus: [vcpu], board }: Subject): string {
  const hashes = FrameHashes.of(inner.host.machine);
  hashes.update();
  let sum: Hash = hashBytes(new TextEncoder().encode(registerLines(vcpu.file).join("\n")));
  for (let gpa = 0; gpa < inner.memory.size; gpa += 4096) {
    const machine = inner.memory.machineAddress(gpa);
    if (machine >= 0) sum = plus(sum, placed(gpa / 4096, hashes.frame(machine / 4096)));
  }
  for (const { name, state } of board.bus.devices) {
    sum = plus(sum, hashBytes(encodePlain([name, state])));
  }
  return hashText(sum);
}
