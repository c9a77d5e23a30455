/** What {@linkcode exists} may be asked besides being there. */
export interface ExistsOptions {
  /** Only when it can be read. */
  isReadable?: boolean;
  /** Only when it is a folder. */
  isDirectory?: boolean;
  /** Only when it is a file. */
  isFile?: boolean;
}

function fits(info: Deno.FileInfo, options: ExistsOptions): boolean {
  if (options.isDirectory && options.isFile) {
    throw new TypeError("ExistsOptions.options.isDirectory and .isFile must not be true together");
  }
  return !(options.isDirectory && !info.isDirectory) && !(options.isFile && !info.isFile) &&
    !(options.isReadable && info.mode !== null && (info.mode & 0o444) === 0);
}

/** Whether the path is there, and is what the options ask for. */
export async function exists(path: string | URL, options: ExistsOptions = {}): Promise<boolean> {
  try {
    return fits(await Deno.stat(path), options);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** As {@linkcode exists}, at once. */
export function existsSync(path: string | URL, options: ExistsOptions = {}): boolean {
  try {
    return fits(Deno.statSync(path), options);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
