import { gzipSync } from "node:zlib";
import { type CpioEntry, writeCpio } from "./cpio.ts";

/**
 * What the tiny guest does: says that it is up, computes three things whose results are the same
 * on every correct machine, forks, says that it is done, and switches off.
 */
export const INIT = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo "GUEST-READY $(cat /proc/uptime)"
dd if=/dev/zero bs=1M count=16 2>/dev/null | sha256sum
awk 'BEGIN{s=0;for(i=0;i<30000;i++){s=(s*1103515245+12345)%2147483648;a[i%97]=s};t=0;for(k in a)t+=a[k];print "awk",t}'
i=0;x=7; while [ $i -lt 20000 ]; do x=$(( (x*33+i)&65535 )); i=$((i+1)); done; echo "sh $x"
i=0; while [ $i -lt 20 ]; do /bin/busybox ls / | /bin/busybox cat >/dev/null; i=$((i+1)); done; echo "forks $i"
echo GUEST-DONE
poweroff -f
`;

/** The lines of a right run of {@link INIT}, in order; `GUEST-READY` is followed by the uptime. */
export const EXPECTED_LINES: readonly string[] = [
  "GUEST-READY ",
  "080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e  -",
  "awk 105594143712",
  "sh 49911",
  "forks 20",
  "GUEST-DONE",
];

/**
 * The names of the applets a busybox binary answers to, read from its packed name table:
 * NUL-terminated names, sorted, beginning with `[` and `[[`. The binary need not run here.
 */
export function appletNames(busybox: Uint8Array): string[] {
  const start = indexOf(busybox, new TextEncoder().encode("\0[\0[[\0"));
  if (start < 0) {
    throw new Error("busybox: no applet table found; expected one beginning with [ [[");
  }
  const names: string[] = [];
  let at = start + 1;
  for (;;) {
    const end = busybox.indexOf(0, at);
    const name = String.fromCharCode(...busybox.subarray(at, end));
    if (!/^[a-z0-9_\[][a-z0-9_.\-\[]*$/.test(name)) return names;
    if (names.length > 0 && name <= names[names.length - 1]) return names;
    names.push(name);
    at = end + 1;
  }
}

function indexOf(bytes: Uint8Array, needle: Uint8Array): number {
  for (let at = bytes.indexOf(needle[0]); at >= 0; at = bytes.indexOf(needle[0], at + 1)) {
    if (needle.every((b, i) => bytes[at + i] === b)) return at;
  }
  return -1;
}

/** The entries of the tiny guest's file system around a busybox binary. */
export function initramfsEntries(busybox: Uint8Array, init: string = INIT): CpioEntry[] {
  const folders = ["bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp"];
  return [
    ...folders.map((path): CpioEntry => ({ kind: "folder", path })),
    { kind: "file", path: "bin/busybox", mode: 0o755, data: busybox },
    ...appletNames(busybox).filter((name) => name !== "busybox")
      .map((name): CpioEntry => ({ kind: "link", path: `bin/${name}`, target: "busybox" })),
    { kind: "device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    { kind: "device", path: "dev/null", mode: 0o666, major: 1, minor: 3 },
    { kind: "file", path: "init", mode: 0o755, data: new TextEncoder().encode(init) },
  ];
}

/** The initramfs, gzip-compressed; the same busybox makes the same bytes on the same Deno. */
export function makeInitramfs(busybox: Uint8Array): Uint8Array {
  const packed = new Uint8Array(gzipSync(writeCpio(initramfsEntries(busybox)), { level: 9 }));
  packed.fill(0, 4, 8); // MTIME
  packed[9] = 0xff; // OS: unknown
  return packed;
}
