/** One entry of an archive: a folder, a file, a symbolic link or a character device. */
export type CpioEntry =
  | { readonly kind: "folder"; readonly path: string; readonly mode?: number }
  | {
    readonly kind: "file";
    readonly path: string;
    readonly mode?: number;
    readonly data: Uint8Array;
  }
  | { readonly kind: "link"; readonly path: string; readonly target: string }
  | {
    readonly kind: "device";
    readonly path: string;
    readonly mode?: number;
    readonly major: number;
    readonly minor: number;
  };

const TYPE = { folder: 0o040000, file: 0o100000, link: 0o120000, device: 0o020000 };
const DEFAULT_MODE = { folder: 0o755, file: 0o644, link: 0o777, device: 0o600 };

/**
 * Writes a cpio archive in the "newc" format (magic 070701) that Linux takes as an initramfs.
 * Entries are sorted by path, every time is 0 and every owner root, so that the same entries
 * always make the same bytes. Paths carry no leading slash.
 *
 * Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
 */
export function writeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const sorted = entries.toSorted((a, b) => a.path < b.path ? -1 : a.path > b.path ? 1 : 0);
  const parts: Uint8Array[] = [];
  sorted.forEach((entry, i) => {
    if (entry.path.startsWith("/") || entry.path === "") {
      throw new RangeError(`cpio path is "${entry.path}"; expected one without a leading slash`);
    }
    parts.push(...record(entry, i + 1));
  });
  parts.push(...record({ kind: "file", path: "TRAILER!!!", mode: 0, data: new Uint8Array() }, 0));
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function record(entry: CpioEntry, inode: number): Uint8Array[] {
  const text = new TextEncoder();
  const data = entry.kind === "file"
    ? entry.data
    : entry.kind === "link"
    ? text.encode(entry.target)
    : new Uint8Array();
  const trailer = inode === 0;
  const permissions = entry.kind === "link"
    ? DEFAULT_MODE.link
    : entry.mode ?? DEFAULT_MODE[entry.kind];
  const [major, minor] = entry.kind === "device" ? [entry.major, entry.minor] : [0, 0];
  const name = text.encode(entry.path + "\0");
  const fields = [
    inode,
    trailer ? 0 : TYPE[entry.kind] | permissions,
    0, // uid
    0, // gid
    entry.kind === "folder" ? 2 : 1, // links
    0, // mtime
    data.length,
    0, // device of the file: major
    0, // minor
    major,
    minor,
    name.length,
    0, // checksum, unused in 070701
  ];
  const header = text.encode(
    "070701" + fields.map((f) => f.toString(16).padStart(8, "0")).join(""),
  );
  return [
    header,
    name,
    new Uint8Array(-(header.length + name.length) & 3),
    data,
    new Uint8Array(-data.length & 3),
  ];
}
