/**
 * The vendor's record of a vCPU, VMCS or VMCB.
 *
 * @module
 */
import { text, word } from "../check.ts";
import { hex, INSPECT } from "../values.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";

/** Every field by its name; null on the bare processor. */
export function rawOf({ domain, engine }: VcpuSubject): Record<string, bigint> | null {
  domain.mustLive("raw");
  if (!engine) return null;
  const fields = engine.ops.dump(engine.hvm);
  const result: Record<string, bigint> = {};
  for (const { name, value } of fields) result[name] = value;
  const width = Math.max(...fields.map((f) => f.name.length));
  return Object.defineProperty(result, INSPECT, {
    value: () =>
      fields.map((f) =>
        `${f.name.padEnd(width)}  ${hex(f.value, f.bits / 4)}${
          f.set?.length ? `  ${f.set.join(" ")}` : ""
        }`
      ).join("\n"),
  });
}

/** Sets a field. @throws {RangeError} if there is no field of that name */
export function setRaw({ domain, engine }: VcpuSubject, name: string, value: bigint): void {
  domain.mustLive("setRaw");
  if (!engine) throw new Error("the bare processor has no control structure");
  text(name, "setRaw name");
  word(64)(value, `setRaw ${name}`);
  domain.host.world.enter("raw", domain.id, { name, value });
  engine.ops.writeRaw(engine.hvm, name, value);
}
