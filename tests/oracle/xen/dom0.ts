/**
 * Domain 0 of the oracle: an initramfs of Debian's tools that runs programs one by one, each in a PVH
 * domain of its own.
 *
 * @module
 */
import { gunzipSync } from "node:zlib";
import { type CpioEntry, writeCpio } from "../../../repl/guests/cpio.ts";
import { oracleGuest, type Width } from "./guest.ts";

/** Memory of the programs' domains, MB; what they can grow to. */
export const MEMORY = 32;
const MEMORY_MAX = 64;
export const VCPUS = 2;

/** Lines by which domain 0 says whose output follows. */
export const MARK = { begin: "PROGRAM", end: "PROGRAM-END", done: "DOM0-DONE" } as const;

/** Domains stay until they are looked at, however they end. */
const ACTIONS = ["poweroff", "reboot", "crash", "watchdog", "soft_reset"]
  .map((event) => `on_${event}="preserve"`).join("\n");

/** Paused at first: the domain sees its store and its console connected. */
const INIT = `#!/bin/busybox sh
export PATH=/bin LD_LIBRARY_PATH=/lib/x86_64-linux-gnu
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts && mount -t devpts pts /dev/pts
for m in xen-evtchn xen-gntdev xen-privcmd xenfs; do insmod /modules/$m.ko; done
mount -t xenfs xenfs /proc/xen
xenstored --pid-file /run/xenstored.pid
xen-init-dom0
xenconsoled
for p in /programs/*; do
  n=$(basename $p)
  cat > /tmp/config <<END
name="$n"
type="pvh"
kernel="/guest\${n##*-}"
ramdisk="$p"
memory=${MEMORY}
maxmem=${MEMORY_MAX}
vcpus=${VCPUS}
uuid="00112233-4455-6677-8899-aabbccddeeff"
${ACTIONS}
END
  if xl create -q -p /tmp/config; then
    d=$(xl domid $n)
    echo "${MARK.begin} $n $d"
    xl unpause $d
    i=0
    while [ $i -lt 150 ]; do
      s=$(xl list -v $d 2>&1 | tail -1)
      set -- $s
      case "$5" in *s*|*c*|*d*|"") break;; esac
      usleep 50000
      i=$((i+1))
    done
    echo "${MARK.end} $n $5 $8"
    xl destroy $d
  else
    echo "${MARK.end} $n failed"
  fi
done
echo ${MARK.done}
poweroff -f
`;

const LIBRARIES =
  /^(libxen.*|libxlutil|libyajl|libzstd|libz|liblzma|libuuid|libext2fs|libcom_err|libgcc_s|libc|ld-linux-x86-64)\.so\./;

/** Folders, files and links for the initramfs, each once. */
class Tree {
  readonly entries: CpioEntry[] = [];
  readonly #folders = new Set<string>();

  folder(path: string): void {
    if (path === "" || this.#folders.has(path)) return;
    this.folder(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
    this.#folders.add(path);
    this.entries.push({ kind: "folder", path });
  }

  file(path: string, data: Uint8Array | string): void {
    this.folder(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    this.entries.push({ kind: "file", path, mode: 0o755, data: bytes });
  }

  link(path: string, target: string): void {
    this.folder(path.slice(0, path.lastIndexOf("/")));
    this.entries.push({ kind: "link", path, target });
  }
}

/** A program's name, which ends with `-32` or `-64`, and its bytes. */
export interface NamedProgram {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** The initramfs, from what packages.ts unpacked at `root`. */
export async function initramfs(
  root: string,
  programs: readonly NamedProgram[],
): Promise<Uint8Array> {
  const tree = new Tree();
  for (const folder of [`${root}/usr/lib/x86_64-linux-gnu`, `${root}/lib/x86_64-linux-gnu`]) {
    for await (const { name, isSymlink } of Deno.readDir(folder)) {
      if (!LIBRARIES.test(name)) continue;
      const to = `lib/x86_64-linux-gnu/${name}`, from = `${folder}/${name}`;
      if (isSymlink) tree.link(to, (await Deno.readLink(from)).split("/").at(-1)!);
      else tree.file(to, await Deno.readFile(from));
    }
  }
  tree.link("lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
  for (const tool of ["xl", "xenstored", "xenconsoled", "xen-init-dom0"]) {
    tree.file(`bin/${tool}`, await Deno.readFile(`${root}/usr/lib/xen-4.17/bin/${tool}`));
  }
  tree.file("bin/busybox", await Deno.readFile(`${root}/bin/busybox`));
  const modules = `${root}/lib/modules/${await only(`${root}/lib/modules`)}/kernel/drivers/xen`;
  for (const module of ["xen-evtchn", "xen-gntdev", "xen-privcmd", "xenfs/xenfs"]) {
    const name = module.split("/").at(-1);
    tree.file(`modules/${name}.ko`, await Deno.readFile(`${modules}/${module}.ko`));
  }
  for (
    const folder of ["proc", "sys", "dev", "tmp", "run/xen", "var/run/xen", "var/lib/xen"]
      .concat("var/lib/xenstored", "var/log/xen", "var/lock", "etc/xen", "programs")
  ) tree.folder(folder);
  tree.entries.push({ kind: "device", path: "dev/console", major: 5, minor: 1 });
  tree.file("etc/xen/xl.conf", "");
  tree.file("init", INIT);
  for (const width of [32, 64] satisfies Width[]) tree.file(`guest${width}`, oracleGuest(width));
  for (const { name, bytes } of programs) tree.file(`programs/${name}`, bytes);
  return writeCpio(tree.entries);
}

/** The one name in a folder. */
async function only(folder: string): Promise<string> {
  const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  if (names.length !== 1) throw new Error(`${folder} has ${names.join(", ")}; expected one kernel`);
  return names[0];
}

/** Xen and domain 0's kernel, as files to boot. */
export async function bootFiles(root: string): Promise<{ xen: Uint8Array; kernel: string }> {
  const xen = gunzipSync(await Deno.readFile(`${root}/boot/xen-4.17-amd64.gz`));
  const kernel = `${root}/boot/vmlinuz-${await only(`${root}/lib/modules`)}`;
  return { xen, kernel };
}
