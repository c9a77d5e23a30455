/**
 * The grants of a domain that knows Xen: what it lets others use of its memory, who does, and what it
 * uses of theirs.
 *
 * @module
 */
import { GTF } from "../../abi/xen/grant_table.ts";
import type { GrantTable } from "../../xen/grants.ts";
import { toCount } from "../check.ts";
import type { Subject } from "../subject.ts";
import { hex, INSPECT, tableText } from "../values.ts";

/** A mapping of a grant. */
export interface GrantUse {
  /** The domain that has mapped it. */
  readonly domain: number;
  /** Its name of the mapping. */
  readonly handle: number;
  /** Its guest frame; undefined where it is in no guest's memory, as of domain 0. */
  readonly at?: number;
  /** It may be read only. */
  readonly readonly: boolean;
}

/** A grant as its domain's table and Xen have it now. */
export interface Grant {
  /** Its number in the domain's table. */
  readonly ref: number;
  /** The guest frame that is granted; undefined of one that passes on another's. */
  readonly frame?: number;
  /** GTF_*: "permit_access", "readonly", "reading", "writing"… */
  readonly flags: readonly string[];
  /** The domain that may use it. */
  readonly domain: number;
  /** Who has mapped it, and where. */
  readonly maps: readonly GrantUse[];
  /** How often it was copied from or to. */
  readonly copies: number;
  /** The part that may be copied, of one that is not a whole page. */
  readonly part?: { readonly from: number; readonly length: number };
  /** The grant that it passes on. */
  readonly onward?: { readonly domain: number; readonly ref: number };
}

/** A grant of another domain's that this one has mapped. */
export interface MappedGrant {
  /** The domain's name of the mapping. */
  readonly handle: number;
  /** Who granted it. */
  readonly domain: number;
  /** By which reference. */
  readonly ref: number;
  /** The guest frame where it is. */
  readonly at: number;
  /** It may be read only. */
  readonly readonly: boolean;
}

/** The grants of a domain: a live table. */
export class Grants implements Iterable<Grant> {
  readonly #subject: Subject;

  /** @ignore Made with its domain. */
  constructor(subject: Subject) {
    this.#subject = subject;
  }
  get #table(): GrantTable {
    const { inner: { xen, name } } = this.#subject;
    this.#subject.mustLive("grants");
    if (!xen) throw new Error(`grants: domain ${name} knows nothing of Xen (xen: true)`);
    return xen.grants;
  }
  /** Version of the table's entries. */
  get version(): 1 | 2 {
    return this.#table.version;
  }
  /** References that there are, in use or not. */
  get size(): number {
    return this.#table.size;
  }
  /**
   * A reference, in use or not.
   *
   * @throws {RangeError} where the table has no such
   */
  get(ref: number): Grant {
    const { size } = this;
    if (toCount(ref, "ref", 0, 2 ** 32 - 1) >= size) {
      throw new RangeError(`grants.get(${ref}): the table has references 0 to ${size - 1}`);
    }
    return this.#grant(ref);
  }
  #grant(ref: number): Grant {
    const table = this.#table, { flags, domain, frame, from, length, onward } = table.entry(ref);
    const partly = table.version === 2 && (flags & GTF.sub_page) !== 0;
    return {
      ref,
      ...!onward && { frame },
      flags: flagNames(flags, table, ref),
      domain,
      maps: this.#mapsOf(ref),
      copies: table.copies.get(ref) ?? 0,
      ...partly && { part: { from, length } },
      ...onward && { onward },
    };
  }
  /** Who maps a grant: all domains' tables say what they have mapped. */
  #mapsOf(ref: number): readonly GrantUse[] {
    const { host: { peers }, id: own } = this.#subject;
    return [...peers.values()].sort((a, b) => a.id - b.id).flatMap(({ id, grants }) =>
      grants.maps.filter(([, map]) => map.domain === own && map.ref === ref)
        .map(([handle, { at, readonly }]) => ({
          domain: id,
          handle,
          ...at >= 0 && { at },
          readonly,
        }))
    );
  }
  /** Those that permit anybody anything, or are in use, by reference. */
  *[Symbol.iterator](): IterableIterator<Grant> {
    const table = this.#table, { size } = table;
    for (let ref = 0; ref < size; ref++) {
      const used = (table.entry(ref).flags & GTF.type_mask) !== 0 || table.active.has(ref);
      if (used) yield this.#grant(ref);
    }
  }
  /** What the domain has mapped of others. */
  get mapped(): readonly MappedGrant[] {
    return this.#table.maps.map(([handle, { domain, ref, at, readonly }]) => ({
      handle,
      domain,
      ref,
      at,
      readonly,
    }));
  }

  /** @ignore */
  [INSPECT](): string {
    const grants = [...this], { mapped } = this;
    const texts: string[] = [];
    if (grants.length > 0) {
      texts.push(tableText(
        ["ref", "frame", "flags", "for", "mapped by", "copies"],
        grants.map(({ ref, frame, flags, domain, maps, copies }) => [
          ref,
          frame === undefined ? "" : hex(frame),
          flags.join(" "),
          `domain ${domain}`,
          maps.map(useText).join(", "),
          copies,
        ]),
      ));
    }
    if (mapped.length > 0) {
      texts.push(tableText(
        ["handle", "of", "ref", "at frame", ""],
        mapped.map(({ handle, domain, ref, at, readonly }) => [
          handle,
          `domain ${domain}`,
          ref,
          hex(at),
          readonly ? "to be read" : "",
        ]),
      ));
    }
    const head = `grant table, version ${this.version}, ${this.size} references`;
    return [head, ...texts.length ? texts : ["  nothing is granted, nothing mapped"]].join("\n");
  }
}

const useText = ({ domain, at, readonly }: GrantUse): string =>
  `domain ${domain}${at === undefined ? "" : ` at ${hex(at)}`}${readonly ? " (to be read)" : ""}`;

const TYPES = ["invalid", "permit_access", "accept_transfer", "transitive"];
/** Flags by name; of version 2 Xen's own stand in the status words. */
function flagNames(flags: number, table: GrantTable, ref: number): readonly string[] {
  const { readers = 0, writers = 0 } = table.active.get(ref) ?? {};
  return [
    TYPES[flags & GTF.type_mask],
    flags & GTF.readonly && "readonly",
    table.version === 2 && flags & GTF.sub_page && "sub_page",
    readers > 0 && "reading",
    writers > 0 && "writing",
  ].filter((name): name is string => typeof name === "string");
}
