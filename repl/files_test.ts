import { assert, assertEquals, assertThrows } from "@std/assert";
import { History } from "./editor/history.ts";
import { appendWhole, writeWhole } from "./files.ts";
import { Session } from "./session.ts";

const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

/** A disk of 64 KB; null where nothing can be mounted. */
function smallDisk(): string | null {
  const folder = Deno.makeTempDirSync();
  try {
    const mounted = new Deno.Command("mount", {
      args: ["-t", "tmpfs", "-o", "size=64k", "none", folder],
      stderr: "null",
    }).outputSync();
    return mounted.success ? folder : null;
  } catch {
    return null; // there is no such program
  }
}

function release(disk: string): void {
  new Deno.Command("umount", { args: [disk] }).outputSync();
  Deno.removeSync(disk);
}

const disk = smallDisk();
if (disk) release(disk);

Deno.test({
  name: "a full disk leaves files as they were, and the message says which and why",
  ignore: disk === null,
  fn: async () => {
    const folder = smallDisk()!;
    try {
      const file = `${folder}/file`;
      writeWhole(file, "old");
      assertThrows(
        () => writeWhole(file, new Uint8Array(100_000)),
        Error,
        `cannot write ${file}: no space left on device`,
      );
      assertEquals([Deno.readTextFileSync(file), names(folder)], ["old", ["file"]]);

      const history = `${folder}/history`;
      writeWhole(history, `"one"\n`);
      const told: string[] = [];
      const kept = new History(history, (message) => told.push(message));
      Deno.writeFileSync(`${folder}/rest`, new Uint8Array(52_000));
      kept.add("x".repeat(20_000));
      kept.add("y".repeat(20_000));
      assertEquals(told, [
        `the history is not kept: cannot write ${history}: no space left on device`,
      ]);
      assertEquals(Deno.readTextFileSync(history), `"one"\n`);

      let printed = "";
      const session = new Session({ print: (text) => void (printed += text) });
      session.inputs.push(`/* ${"z".repeat(30_000)} */`);
      await session.enter(`.save ${file}`);
      session.evaluator.close();
      assertEquals(printed, `.save: cannot write ${file}: no space left on device\n`);
      assertEquals(Deno.readTextFileSync(file), "old");
    } finally {
      release(folder);
    }
  },
});

Deno.test("a write that the system ends half way leaves the file as it was", async () => {
  const file = `${await Deno.makeTempDir()}/file`;
  writeWhole(file, "old");
  const code = `import { writeWhole } from ${JSON.stringify(import.meta.resolve("./files.ts"))};
    try { writeWhole(${JSON.stringify(file)}, new Uint8Array(100_000)); } catch { Deno.exit(1); }`;
  const { success } = await new Deno.Command("bash", {
    args: ["-c", `ulimit -f 16; exec "$0" eval "$1"`, Deno.execPath(), code],
    stderr: "null",
  }).output();
  assertEquals([success, await Deno.readTextFile(file)], [false, "old"]);
});

Deno.test("writeWhole() keeps links and modes, and writes to what is no file", async () => {
  const folder = await Deno.makeTempDir();
  writeWhole(`${folder}/new`, "1");
  assertEquals(await Deno.readTextFile(`${folder}/new`), "1");
  await Deno.chmod(`${folder}/new`, 0o640);
  await Deno.symlink(`${folder}/new`, `${folder}/link`);
  writeWhole(`${folder}/link`, "2");
  assert((await Deno.lstat(`${folder}/link`)).isSymlink);
  assertEquals(await Deno.readTextFile(`${folder}/new`), "2");
  assertEquals((await Deno.stat(`${folder}/new`)).mode! & 0o777, 0o640);
  writeWhole("/dev/null", "3");
  assertThrows(() => writeWhole(folder, "4"), Error, `cannot write ${folder}: it is a folder`);
  assertThrows(
    () => writeWhole(`${folder}/none/file`, "5"),
    Error,
    `cannot write ${folder}/none/file: no such file or folder`,
  );
  assertThrows(() => writeWhole("/dev/full", "6"), Error, "no space left on device");
  assertEquals(names(folder), ["link", "new"]);
});

Deno.test("a history that is too long is cut, whole, and one that was cut off goes on", async () => {
  const file = `${await Deno.makeTempDir()}/history`;
  const lines = Array.from({ length: 5_010 }, (_, i) => `"${i}"\n`);
  await Deno.writeTextFile(file, lines.join(""));
  assertEquals(new History(file).entries.length, 5_000);
  assertEquals((await Deno.readTextFile(file)).split("\n").length, 5_001);
  await Deno.writeTextFile(file, `"whole"\n"cut o`);
  new History(file).add("next");
  assertEquals(new History(file).entries, ["whole", "next"]);
  appendWhole(file, `"more"\n`);
  assertEquals(new History(file).entries, ["whole", "next", "more"]);
});
