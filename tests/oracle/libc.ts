/**
 * The few functions of glibc that the oracle needs, by Deno FFI. x86-64 Linux only.
 * Errors carry the function's name and errno.
 */

const symbols = {
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  kill: { parameters: ["i32", "i32"], result: "i32" },
  waitpid: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  posix_spawn: {
    parameters: ["buffer", "buffer", "buffer", "pointer", "buffer", "buffer"],
    result: "i32",
  },
  posix_spawn_file_actions_init: { parameters: ["buffer"], result: "i32" },
  posix_spawn_file_actions_adddup2: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  posix_spawn_file_actions_destroy: { parameters: ["buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The loaded library. */
export type Libc = Deno.DynamicLibrary<typeof symbols>;

/** Loads libc; throws an error that says what is missing. */
export function openLibc(): Libc {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    throw new Error(`needs x86-64 Linux, this is ${Deno.build.arch} ${Deno.build.os}`);
  }
  return Deno.dlopen("libc.so.6", symbols);
}

/** errno of the last failed call. Valid after synchronous calls only. */
export function errno(libc: Libc): number {
  return new Deno.UnsafePointerView(libc.symbols.__errno_location()!).getInt32();
}

/** Returns `result`, or throws if it is negative. */
export function checked<T extends number | bigint>(libc: Libc, name: string, result: T): number {
  if (result < 0) throw new Error(`${name} failed with errno ${errno(libc)}`);
  return Number(result);
}

/** A NUL-terminated string. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text + "\0");
}

/** Creates an anonymous memory file (close-on-exec) of `size` bytes. */
export function memoryFile(libc: Libc, name: string, size: number): number {
  const fd = checked(libc, "memfd_create", libc.symbols.memfd_create(cString(name), 1));
  checked(libc, "ftruncate", libc.symbols.ftruncate(fd, BigInt(size)));
  return fd;
}

/** Writes all bytes to a descriptor. */
export function writeAll(libc: Libc, fd: number, bytes: Uint8Array<ArrayBuffer>): void {
  for (let at = 0; at < bytes.length;) {
    const rest = bytes.slice(at);
    at += checked(libc, "write", libc.symbols.write(fd, rest, BigInt(rest.length)));
  }
}

/** Maps a descriptor shared, readable and writable; the view aliases the mapping. */
export function mapShared(libc: Libc, fd: number, size: number): {
  pointer: Deno.PointerObject;
  buffer: ArrayBuffer;
} {
  const pointer = libc.symbols.mmap(null, BigInt(size), 3, 1, fd, 0n);
  if (!pointer || Deno.UnsafePointer.value(pointer) === 0xffff_ffff_ffff_ffffn) {
    throw new Error(`mmap of ${size} bytes failed with errno ${errno(libc)}`);
  }
  return { pointer, buffer: Deno.UnsafePointerView.getArrayBuffer(pointer, size) };
}
