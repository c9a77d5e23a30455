import { firstFile } from "./tar.ts";

/** Why guest images could not be made, in words for the person at the prompt. */
export class GuestsError extends Error {
  override readonly name = "GuestsError";
}

/** One step of a fetch, for a progress line. */
export type Report = (message: string) => void;

/**
 * Debian's package client with a state folder and an architecture list of its own. It reads the
 * host's package sources, keys and proxy settings as they are, and writes below `folder` only.
 */
export class Apt {
  readonly folder: string;
  #report: Report;
  #updated = false;
  #offline = false;

  constructor(folder: string, report: Report) {
    this.folder = folder;
    this.#report = report;
  }

  get #config(): string {
    return `${this.folder}/apt.conf`;
  }

  /** Makes the folders and the configuration, and checks that the tools are there. */
  async open(): Promise<void> {
    for (const tool of ["apt-get", "apt-cache", "dpkg-deb"]) {
      if (!await works(tool, ["--version"])) {
        throw new GuestsError(
          `${tool} is missing: guest images are made from Debian's packages and need apt-get, ` +
            `apt-cache and dpkg-deb (packages apt and dpkg). Run this on a Debian system, or ` +
            `give --kernel the path of a kernel you have`,
        );
      }
    }
    for (const part of ["state/lists/partial", "cache/archives/partial", "log", "debs"]) {
      await Deno.mkdir(`${this.folder}/${part}`, { recursive: true });
    }
    await Deno.writeTextFile(`${this.folder}/state/status`, "", { append: true });
    await Deno.writeTextFile(this.#config, this.#configuration());
  }

  /** Names no host: sources come from the host's own Dir::Etc. Hooks of the host do not run. */
  #configuration(): string {
    const quoted = (path: string) => JSON.stringify(path);
    return [
      `Dir::State ${quoted(`${this.folder}/state`)};`,
      `Dir::State::status ${quoted(`${this.folder}/state/status`)};`,
      `Dir::Cache ${quoted(`${this.folder}/cache`)};`,
      `Dir::Log ${quoted(`${this.folder}/log`)};`,
      `#clear APT::Architectures;`,
      `APT::Architecture "amd64";`,
      `APT::Architectures { "amd64"; "i386"; };`,
      `APT::Sandbox::User "root";`,
      `Acquire::Languages "none";`,
      `#clear APT::Update::Pre-Invoke;`,
      `#clear APT::Update::Post-Invoke;`,
      `#clear APT::Update::Post-Invoke-Success;`,
      "",
    ].join("\n");
  }

  /**
   * Reads the package lists, once. A list that fails alone (the i386 security index is sometimes
   * out of step) is passed over: what matters is whether the packages are found afterwards.
   */
  async update(): Promise<void> {
    if (this.#updated) return;
    this.#report("reading package lists");
    const { code, output } = await this.#run("apt-get", ["-q", "update"]);
    explain(output);
    this.#offline = OFFLINE.test(output);
    if (code !== 0) this.#report("  some package lists could not be read; going on without them");
    this.#updated = true;
  }

  /** The versioned package a meta-package depends on, or the package itself. */
  async resolve(name: string): Promise<string> {
    const { code, output } = await this.#run("apt-cache", ["depends", name]);
    if (code !== 0) {
      throw new GuestsError(
        `package ${name} is not in the package lists of this host: ` +
          (this.#offline
            ? "the package sources cannot be reached; this machine seems to be offline"
            : `its sources must offer Debian (bookworm or near) for ${name.split(":")[1]}`),
      );
    }
    const [bare, architecture] = name.split(":");
    if (!bare.startsWith("linux-image-")) return name;
    const versioned = /Depends: (linux-image-\d[^\s:]*)/.exec(output);
    return versioned ? `${versioned[1]}:${architecture}` : name;
  }

  /** Downloads a package (apt resumes and checks hashes) and returns the path of its file. */
  async download(name: string): Promise<{ path: string; version: string }> {
    const { output: uris } = await this.#run("apt-get", ["--print-uris", "download", name]);
    const match = /^'[^']*' (\S+\.deb) (\d+)/m.exec(uris);
    if (!match) throw new GuestsError(`apt-get knows no file for package ${name}`);
    const [, file, size] = match;
    const path = `${this.folder}/debs/${file}`;
    this.#report(`downloading ${file} (${(Number(size) / 1e6).toFixed(1)} MB)`);
    const { code, output } = await this.#run("apt-get", ["-q", "download", name]);
    if (code !== 0) {
      explain(output);
      throw new GuestsError(`apt-get could not download ${name}: ${lastError(output)}`);
    }
    return { path, version: decodeURIComponent(file.split("_")[1]) };
  }

  /** One file out of a downloaded package. */
  async extract(
    deb: string,
    wanted: (path: string) => boolean,
  ): Promise<{ path: string; bytes: Uint8Array } | undefined> {
    const child = new Deno.Command("dpkg-deb", {
      args: ["--fsys-tarfile", deb],
      stdout: "piped",
      stderr: "null",
      stdin: "null",
    }).spawn();
    try {
      return await firstFile(child.stdout, wanted);
    } finally {
      await child.status;
    }
  }

  async #run(tool: string, args: string[]): Promise<{ code: number; output: string }> {
    const { code, stdout, stderr } = await new Deno.Command(tool, {
      args: ["-c", this.#config, ...args],
      cwd: `${this.folder}/debs`,
      env: { LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
  }
}

const OFFLINE = /Could not resolve|Temporary failure|Could not connect|Network is unreachable/;

async function works(tool: string, args: string[]): Promise<boolean> {
  try {
    const { success } = await new Deno.Command(tool, { args, stdout: "null", stderr: "null" })
      .output();
    return success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Turns what apt says about a full disk or a taken lock into one clear message. */
function explain(output: string): void {
  if (/No space left on device/i.test(output)) {
    throw new GuestsError("the disk is full: guest images need about 500 MB while they are made");
  }
  if (/Could not get lock|Unable to lock/.test(output)) {
    throw new GuestsError("another fetch is at work in the same folder; wait for it to end");
  }
}

function lastError(output: string): string {
  const errors = output.split("\n").filter((line) => /^(E|Err)[: ]/.test(line));
  const line = errors.at(-1) ?? "no message";
  // A line may quote the address of a mirror, with credentials in it.
  const text = line.replace(/\b\w+:\/\/\S+/g, "(the mirror)");
  return OFFLINE.test(output) ? `${text} (this machine seems to be offline)` : text;
}
