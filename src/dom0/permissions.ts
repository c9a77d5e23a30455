/**
 * Who may do what with a node: a list of domains. The first is the owner, who may do everything; what
 * stands beside him is for those who are not in the list.
 *
 * @module
 */
import { list, tuple, whole } from "../machine/shape.ts";

/** Bits of what a caller may do. */
export const ACCESS = { read: 1, write: 2, owner: 4 } as const;

/** A domain, and what it may do. */
export interface Permission {
  readonly domain: number;
  /** Bits of {@linkcode ACCESS}. */
  readonly access: number;
  /** The domain is no more: one that gets its number later has no right by this. */
  readonly gone?: true;
}

/** Who asks. Domain 0 may do everything. */
export interface Caller {
  readonly id: number;
  /** The domain whose rights it has besides its own (SET_TARGET). */
  readonly target: number | null;
}

export const isPrivileged = ({ id }: Caller): boolean => id === 0;

const ALL = ACCESS.read | ACCESS.write | ACCESS.owner;

/** What a caller may do where there are these permissions. */
export function accessOf(caller: Caller, permissions: readonly Permission[]): number {
  const is = ({ domain, gone }: Permission) =>
    !gone && (domain === caller.id || domain === caller.target);
  const [owner, ...others] = permissions;
  if (isPrivileged(caller) || is(owner)) return ALL;
  return (others.find(is) ?? owner).access;
}

const LETTERS = "nrwb";

/** As it stands in a message: "r5". */
export const permissionText = ({ domain, access }: Permission): string =>
  `${LETTERS[access]}${domain | 0}`;

/** A permission of a message; the number may be octal or hexadecimal, as C's strtol() reads it. */
export function parsePermission(text: string): Permission | undefined {
  const access = LETTERS.indexOf(text[0]);
  const number = text.slice(1).match(/^[ \t-\r]*([+-]?)(0x[\da-f]+|0[0-7]*|[1-9]\d*)$/i);
  if (access < 0 || !number) return undefined;
  const [, sign, digits] = number;
  const size = Number(/^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits);
  return { domain: Number(BigInt.asUintN(32, BigInt(sign === "-" ? -size : size))), access };
}

/** A domain is no more. */
export function withoutDomain(
  permissions: readonly Permission[],
  domain: number,
): readonly Permission[] {
  if (!permissions.some((each) => each.domain === domain && !each.gone)) return permissions;
  return permissions.map((each) => each.domain === domain ? { ...each, gone: true } : each);
}

/** [domain, access, 1 if it is gone] of each. */
export type SavedPermissions = readonly (readonly [number, number, number])[];

export const PERMISSIONS_SHAPE = list(tuple(whole(0, 0xffff_ffff), whole(0, 3), whole(0, 1)));

export const savePermissions = (permissions: readonly Permission[]): SavedPermissions =>
  permissions.map(({ domain, access, gone }) => [domain, access, gone ? 1 : 0]);

export const loadPermissions = (saved: SavedPermissions): readonly Permission[] =>
  saved.map(([domain, access, gone]) => ({ domain, access, ...gone ? { gone: true } : {} }));
