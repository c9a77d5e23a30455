/**
 * What is said of objects whose domain is no more: one sentence, whether they are used or looked at.
 *
 * @module
 */
import type { Domain as Inner } from "../xen/domain.ts";
import { grouped } from "./values.ts";

/** Since when a domain is no more; undefined while it is there. */
export function goneText({ name, state }: Inner): string | undefined {
  if (state.kind !== "destroyed") return undefined;
  return `domain ${name} is destroyed, since instruction ${grouped(state.count)} of its host`;
}

/** @throws {Error} saying since when the domain is no more, which `what` needs */
export function mustLive(domain: Inner, what: string): void {
  const gone = goneText(domain);
  if (gone !== undefined) throw new Error(`${what}: ${gone}`);
}
