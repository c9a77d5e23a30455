/**
 * Debian's Xen and what a domain 0 for it needs, from Debian's packages, unpacked into a folder.
 *
 * @module
 */
import { Apt, type Report } from "../../../repl/guests/apt.ts";
import { guestsFolder } from "../../../repl/guests/images.ts";

/** Xen, its tools, their libraries, a kernel and a shell. */
const PACKAGES = [
  "xen-hypervisor-4.17-amd64",
  "xen-utils-4.17",
  "libxenmisc4.17",
  "libxencall1",
  "libxendevicemodel1",
  "libxenevtchn1",
  "libxenforeignmemory1",
  "libxengnttab1",
  "libxenhypfs1",
  "libxenstore4",
  "libxentoollog1",
  "libxentoolcore1",
  "libyajl2",
  "libzstd1",
  "zlib1g",
  "liblzma5",
  "libuuid1",
  "libext2fs2",
  "libcom-err2",
  "libgcc-s1",
  "libc6",
  "busybox-static",
  "linux-image-amd64",
].map((name) => `${name}:amd64`);

/** Where the packages are unpacked: beside the guests. */
export const xenFolder = (): string => `${guestsFolder()}/../xen-oracle`;

/** What was unpacked: version by package. */
export type Versions = Readonly<Record<string, string>>;

/** The versions in the folder; undefined when {@linkcode fetchXen} did not come to its end there. */
export async function xenVersions(folder = xenFolder()): Promise<Versions | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(`${folder}/versions.json`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Downloads and unpacks the packages. Needs apt-get and dpkg-deb; no root. Throws GuestsError. */
export async function fetchXen(report: Report, folder = xenFolder()): Promise<Versions> {
  const apt = new Apt(`${folder}/apt`, report);
  await apt.open();
  await apt.update();
  const versions: Record<string, string> = {};
  for (const name of PACKAGES) {
    const { path, version } = await apt.download(await apt.resolve(name));
    const { success } = await new Deno.Command("dpkg-deb", {
      args: ["--extract", path, `${folder}/root`],
    }).output();
    if (!success) throw new Error(`dpkg-deb could not unpack ${path} into ${folder}/root`);
    versions[name.split(":")[0]] = version;
  }
  await Deno.writeTextFile(`${folder}/versions.json`, JSON.stringify(versions, null, 2));
  return versions;
}
