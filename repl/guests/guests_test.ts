import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { gunzipSync } from "node:zlib";
import { GuestsError } from "./apt.ts";
import { guestsCommand } from "./command.ts";
import { writeCpio } from "./cpio.ts";
import { fetchGuests, listGuests } from "./images.ts";
import { appletNames, INIT, initramfsEntries, makeInitramfs } from "./initramfs.ts";
import { firstFile } from "./tar.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Reads a newc archive the way the kernel does: path, mode, data, device. */
function readCpio(bytes: Uint8Array) {
  const entries: { path: string; mode: number; data: string; device: number[] }[] = [];
  for (let at = 0;;) {
    assertEquals(decode(bytes.subarray(at, at + 6)), "070701");
    const field = (n: number) =>
      parseInt(decode(bytes.subarray(at + 6 + 8 * n, at + 14 + 8 * n)), 16);
    const path = decode(bytes.subarray(at + 110, at + 110 + field(11) - 1));
    const dataAt = (at + 110 + field(11) + 3) & ~3;
    if (path === "TRAILER!!!") return entries;
    const data = decode(bytes.subarray(dataAt, dataAt + field(6)));
    assertEquals([field(2), field(3), field(5)], [0, 0, 0]); // root, and no time
    entries.push({ path, mode: field(1), data, device: [field(9), field(10)] });
    at = (dataAt + field(6) + 3) & ~3;
  }
}

Deno.test("writeCpio() sorts, pads and types its entries", () => {
  const bytes = writeCpio([
    { kind: "link", path: "sh", target: "busybox" },
    { kind: "device", path: "console", major: 5, minor: 1 },
    { kind: "folder", path: "bin" },
    { kind: "file", path: "a", data: encode("hello"), mode: 0o755 },
  ]);
  assertEquals(bytes.length % 4, 0);
  assertEquals(readCpio(bytes), [
    { path: "a", mode: 0o100755, data: "hello", device: [0, 0] },
    { path: "bin", mode: 0o040755, data: "", device: [0, 0] },
    { path: "console", mode: 0o020600, data: "", device: [5, 1] },
    { path: "sh", mode: 0o120777, data: "busybox", device: [0, 0] },
  ]);
  assertThrows(() => writeCpio([{ kind: "folder", path: "/bin" }]), RangeError, `"/bin"`);
});

const BUSYBOX = encode("\x7fELF...\0usage\0[\0[[\0ash\0awk\0cat\0sh\0Bad name\0zzz");

Deno.test("appletNames() reads the packed table up to what is no name", () => {
  assertEquals(appletNames(BUSYBOX), ["[", "[[", "ash", "awk", "cat", "sh"]);
  assertThrows(() => appletNames(encode("none")), Error, "no applet table");
});

Deno.test("makeInitramfs() holds busybox, its links, the console and /init, always the same", () => {
  const packed = makeInitramfs(BUSYBOX);
  assertEquals(packed, makeInitramfs(BUSYBOX));
  const entries = readCpio(gunzipSync(packed));
  const find = (path: string) => entries.find((e) => e.path === path)!;
  assertEquals(find("init"), { path: "init", mode: 0o100755, data: INIT, device: [0, 0] });
  assertEquals(find("bin/sh").data, "busybox");
  assertEquals(find("dev/console").device, [5, 1]);
  assertEquals(entries.length, initramfsEntries(BUSYBOX).length);
});

Deno.test("firstFile() finds a file in a tar stream cut into odd chunks", async () => {
  const header = (path: string, size: number, type = "0") => {
    const bytes = new Uint8Array(512);
    bytes.set(encode(path));
    bytes.set(encode(size.toString(8).padStart(11, "0")), 124);
    bytes.set(encode(type), 156);
    return bytes;
  };
  const pad = (text: string) => {
    const bytes = new Uint8Array(512);
    bytes.set(encode(text));
    return bytes;
  };
  const long = "./boot/" + "x".repeat(120);
  const tar = new Uint8Array([
    ...header("./boot/", 0, "5"),
    ...header("./boot/config", 3),
    ...pad("no!"),
    ...header("././@LongLink", long.length + 1, "L"),
    ...pad(long),
    ...header(long.slice(0, 99), 5),
    ...pad("image"),
    ...new Uint8Array(1024),
  ]);
  const stream = () =>
    new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < tar.length; at += 77) controller.enqueue(tar.slice(at, at + 77));
        controller.close();
      },
    });
  const found = await firstFile(stream(), (path) => path.startsWith("boot/x"));
  assertEquals([found?.path, decode(found!.bytes)], [long.slice(2), "image"]);
  assertEquals(await firstFile(stream(), (path) => path === "boot/none"), undefined);
});

Deno.test("fetchGuests() names the guests it knows", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await assertRejects(
      () => fetchGuests(["windows"], { folder }),
      GuestsError,
      `no guest is named "windows"; expected 686,`,
    );
    const listed = await listGuests(folder);
    assert(listed.length >= 6 && listed.every((l) => l.present.length === 0));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("guestsCommand() ends with 2 for arguments it does not know", async () => {
  const { error } = console;
  console.error = () => {};
  try {
    assertEquals(await guestsCommand(["burn"]), 2);
    assertEquals(await guestsCommand(["fetch"]), 2);
    assertEquals(await guestsCommand(["fetch", "686", "--fast"]), 2);
  } finally {
    console.error = error;
  }
});
