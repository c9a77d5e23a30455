import { assert, assertEquals, assertRejects } from "@std/assert";
import { Hypervisor } from "./hypervisor.ts";
import { multibootImage } from "./testing/images.ts";

/** A file of a size that takes no room on the disk. */
async function hollow(path: string, size: number): Promise<string> {
  await Deno.writeFile(path, new Uint8Array());
  await Deno.truncate(path, size);
  return path;
}

Deno.test("createDomain() refuses a file by its size or kind, before anything of it is read", async () => {
  const folder = await Deno.makeTempDir();
  await using hv = await Hypervisor.start({ memory: "64M" });
  const big = await hollow(`${folder}/big`, 5 * 2 ** 30);
  const more = await hollow(`${folder}/more`, 17 * 2 ** 20);
  const kernel = multibootImage("hlt");
  const refused = async (options: object) => {
    const started = performance.now();
    const { message } = await assertRejects(
      () => hv.createDomain({ kernel, memory: "16M", ...options }),
      Error,
    );
    assert(performance.now() - started < 2000, "nothing of it is read");
    return message.replaceAll(folder, "");
  };
  assertEquals(
    await refused({ kernel: big }),
    "kernel: at most 1 GB was expected, /big has 5 GB",
  );
  assertEquals(
    await refused({ symbols: big }),
    "symbols: at most 1 GB was expected, /big has 5 GB",
  );
  // What is put into the guest's memory as it is has to fit there.
  assertEquals(
    await refused({ ramdisk: more }),
    "ramdisk: at most 16 MB was expected, /more has 17 MB",
  );
  assertEquals(
    await refused({ modules: [{ file: more }] }),
    "module: at most 16 MB was expected, /more has 17 MB",
  );
  for (const what of ["kernel", "ramdisk", "symbols"]) {
    assertEquals(await refused({ [what]: folder }), `${what}: a file was expected,  is a folder`);
    assertEquals(
      await refused({ [what]: "/dev/zero" }),
      `${what}: a file was expected, /dev/zero is a device or a pipe`,
    );
    assertEquals(
      await refused({ [what]: `${folder}/none` }),
      `${what}: cannot read /none: there is no such file`,
    );
    const long = await refused({ [what]: "n".repeat(2 ** 20) });
    assert(long.length < 500, `${long.length} characters`);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("createDomain() refuses names that no prompt could show", async () => {
  await using hv = await Hypervisor.start({ memory: "64M" });
  const kernel = multibootImage("hlt");
  for (const name of ["n".repeat(2 ** 20), "two\nlines", "\x1b[2J", ""]) {
    const { message } = await assertRejects(
      () => hv.createDomain({ kernel, memory: "8M", name }),
      RangeError,
      "name: ",
    );
    assert(message.length < 200, `${message.length} characters`);
  }
  const domain = await hv.createDomain({ kernel, memory: "8M", name: "n".repeat(255) });
  assertEquals(domain.name.length, 255);
});
