/** Makes the folder, and those above it, when it is not there. Throws when a file is in its place. */
export async function ensureDir(dir: string | URL): Promise<void> {
  await Deno.mkdir(dir, { recursive: true });
}

/** As {@linkcode ensureDir}, at once. */
export function ensureDirSync(dir: string | URL): void {
  Deno.mkdirSync(dir, { recursive: true });
}

/** Makes the folder, or removes everything that is in it. */
export async function emptyDir(dir: string | URL): Promise<void> {
  await ensureDir(dir);
  const base = dir instanceof URL ? new URL(dir.href.replace(/\/?$/, "/")) : `${dir}/`;
  for await (const { name } of Deno.readDir(dir)) {
    const path = base instanceof URL ? new URL(encodeURIComponent(name), base) : base + name;
    await Deno.remove(path, { recursive: true });
  }
}
