/** Small guests, and every way to run them, for the tests of this folder. */
import type { DomainOptions } from "../options.ts";
import { Hypervisor } from "../hypervisor.ts";
import { type GuestDomain, subjectOf } from "../domain.ts";
import { attention } from "../../xen/world_attention.ts";

export { assembleKernel, kernel } from "./prologue.ts";

/** A vendor and a kind of paging; "bare": no hypervisor under the guest. */
export interface Configuration {
  readonly cpu: "intel" | "amd";
  readonly paging: "hap" | "shadow" | "bare";
}
/** Both vendors with both kinds of paging. */
export const virtual: readonly Configuration[] = (["intel", "amd"] as const).flatMap((cpu) =>
  (["hap", "shadow"] as const).map((paging) => ({ cpu, paging }))
);
/** And both vendors' bare machine. */
export const configurations: readonly Configuration[] = [
  ...virtual,
  { cpu: "intel", paging: "bare" },
  { cpu: "amd", paging: "bare" },
];

/** A host with one domain, "guest", that runs `image`. */
export async function hostOf(
  { cpu, paging }: Configuration,
  image: Uint8Array,
  more: Partial<DomainOptions> = {},
): Promise<{ hv: Hypervisor; dom: GuestDomain } & AsyncDisposable> {
  const hv = await Hypervisor.start({ cpu, memory: "24M" });
  const dom = await hv.createDomain({
    name: "guest",
    type: paging === "bare" ? "bare" : "hvm",
    paging: paging === "bare" ? undefined : paging,
    kernel: image,
    memory: "4M",
    ...more,
  });
  return { hv, dom, [Symbol.asyncDispose]: () => hv.close() };
}

/**
 * Presses a key each time that the demo guest asks for one, at the instruction that writes its prompt:
 * wherever the host has its turn.
 */
export function pressKeys(dom: GuestDomain, keys: string): void {
  let left = keys, line = "";
  subjectOf(dom).inner.onByte.add((byte) => {
    line = byte === 10 ? "" : line + String.fromCharCode(byte);
    if (line !== "demo> " || !left) return;
    dom.console.write(left[0]);
    left = left.slice(1);
  });
}

/** Lets what was woken run, and what was answered arrive. */
export async function settle(turns = 3): Promise<void> {
  for (let n = 0; n < turns; n++) await attention.turn();
}
