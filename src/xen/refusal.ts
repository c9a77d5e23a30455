/**
 * Why a hypercall was refused: each rule that refuses has a name, and its operands. Set by the code that
 * refuses, and read when the call is made; so it is of the call at hand alone, and no state.
 */

/** Rules by name, in words. */
const RULES = {
  "port closed": (port: number) => `port ${port} is closed`,
  "port unknown": (port: number) => `port ${port} lies beyond those that were ever open`,
  "port served": (port: number) => `port ${port} is the hypervisor's own`,
  "port not sent": (port: number) => `port ${port} is a VIRQ's or a PIRQ's: the guest sends none`,
  "port bound": (port: number) =>
    `port ${port} is an IPI's, or a vCPU's VIRQ: it stays where it is`,
  "ports used up": (most: number) => `all of ${most} ports are in use`,
  "peer closed": (domain: number, port: number) => `domain ${domain}'s port ${port} is not unbound`,
  "peer for another": (domain: number, port: number, whom: number) =>
    `domain ${domain}'s port ${port} is for domain ${whom}`,
  "no domain": (domain: number) => `there is no domain ${domain} with channels and grants`,
  "another domain": (domain: number) =>
    `domain ${domain} is another: an unprivileged guest has a say over itself alone`,
  "no virq": (virq: number) => `there is no VIRQ ${virq}`,
  "global virq": (virq: number, vcpu: number) =>
    `VIRQ ${virq} is the domain's: it is bound to vCPU 0, not to ${vcpu}`,
  "virq bound": (virq: number, vcpu: number) => `VIRQ ${virq} of vCPU ${vcpu} has a port already`,
  "no vcpu": (vcpu: number) => `the domain has no vCPU ${vcpu}`,
  "no pirq": (pirq: number) => `there is no PIRQ ${pirq}`,
  "pirq bound": (pirq: number) => `PIRQ ${pirq} has a port already`,
  "no reference": (ref: number, size: number) => `reference ${ref}: the table has ${size}`,
  "grant in use": (ref: number, by: number) =>
    `reference ${ref} is in use by domain ${by}, or as often as it may be, or of a part of a page`,
  "grant read-only": (ref: number) => `reference ${ref} may be read only`,
  "grant for another": (ref: number, whom: number) => `reference ${ref} is for domain ${whom}`,
  "no grant": (ref: number) => `reference ${ref} grants no access`,
  "part of a page": (ref: number) => `reference ${ref} grants a part of a page: it is copied only`,
  "no page": (ref: number, frame: number) =>
    `reference ${ref}: guest frame 0x${frame.toString(16)} is no memory that it may grant so`,
  "maps used up": (most: number) => `all of ${most} mappings are in use`,
  "no handle": (handle: number) => `there is no mapping ${handle}`,
} as const satisfies Readonly<Record<string, (...operands: number[]) => string>>;
/** A rule that refuses. */
export type RuleName = keyof typeof RULES;

/** What refused, and with what operands. */
export interface BrokenRule {
  readonly rule: RuleName;
  readonly operands: readonly number[];
}
let last: BrokenRule | undefined;

/** `result`, which is below 0, is given because of a rule. */
export function refuse<K extends RuleName>(
  result: number,
  rule: K,
  ...operands: Parameters<typeof RULES[K]>
): number {
  last = { rule, operands };
  return result;
}
/** What refused last, since this was asked. */
export function takeBroken(): BrokenRule | undefined {
  const taken = last;
  last = undefined;
  return taken;
}
/** The rule in words. */
export const ruleText = ({ rule, operands }: BrokenRule): string =>
  (RULES[rule] as (...operands: readonly number[]) => string)(...operands);
