/**
 * Paths of XenStore (docs/misc/xenstore.txt).
 *
 * @module
 */

/** Where a domain's own nodes are, and what its relative paths begin with. */
export const domainPath = (domain: number): string => `/local/domain/${domain}`;

/** A relative path is a domain's own; a special one is no path. */
export const absolutePath = (path: string, domain: number): string =>
  path[0] === "/" || path[0] === "@" ? path : `${domainPath(domain)}/${path}`;

/** Of "/" it is "/" itself. */
export const parentPath = (path: string): string => path.slice(0, path.lastIndexOf("/")) || "/";

/** The last part. */
export const leafName = (path: string): string => path.slice(path.lastIndexOf("/") + 1);

export const childPath = (path: string, leaf: string): string =>
  path === "/" ? `/${leaf}` : `${path}/${leaf}`;

/** The same, or somewhere below. */
export const isWithin = (path: string, parent: string): boolean =>
  parent === "/" || path === parent || path.startsWith(`${parent}/`);

const VALID = /^\/$|^(?:\/[A-Za-z0-9\-_@]+)+$/, OWN = /^\/local\/domain\/-?\d{1,5}\//;

/**
 * @param longest characters of a relative path; /local/domain/ID/ may stand before them
 */
export function isPath(path: string, longest: number): boolean {
  if (path.length > longest && path.length > longest + (path.match(OWN)?.[0].length ?? 0)) {
    return false;
  }
  return VALID.test(path);
}
