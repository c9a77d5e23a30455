import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "./main.ts";

/** Runs the command line in this process; what it prints by `console` is caught. */
async function run(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const saved = { log: console.log, error: console.error };
  let out = "", err = "";
  console.log = (text = "") => void (out += `${text}\n`);
  console.error = (text = "") => void (err += `${text}\n`);
  try {
    return { code: await main(args), out, err };
  } finally {
    Object.assign(console, saved);
  }
}

/** Runs it as a process of its own. */
async function xvm(
  args: string[],
  input = "",
): Promise<{ code: number; out: string; err: string }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-A", new URL("./main.ts", import.meta.url).pathname, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

Deno.test("wrong arguments give one message and exit status 2", async () => {
  const kernel = import.meta.filename!;
  const wrong: [string[], string][] = [
    [["bot"], "bot"],
    [["--nothing"], "--nothing"],
    [["boot"], "--kernel"],
    [["boot", "--kernel", "/no/such"], "/no/such: no such file"],
    [["boot", "--kernel", "/tmp"], "/tmp: is no file"],
    [["boot", "--kernel", kernel, "--cpu", "arm"], "intel, amd"],
    [
      ["boot", "--kernel", kernel, "--memory", "much"],
      `expected a size such as 256M or 1G, got "much"`,
    ],
    [["boot", "--kernel", kernel, "--memory", "1K"], "--memory: expected 2M to 3G in whole"],
    [["boot", "--kernel", kernel, "--memory", "3073M"], "pages of 4K, got 3073M"],
    [["boot", "--kernel", kernel, "--memory", "5G", "--type", "bare"], "pages of 4K, got 5G"],
    [["boot", "--kernel", kernel, "--memory", "8194.5K"], "pages of 4K, got 8194.5K"],
    [["boot", "--kernel", kernel, "--vcpus", "0"], "vcpus: expected 1 to 16, got 0"],
    [["boot", "--kernel", kernel, "--vcpus", "17"], "vcpus: expected 1 to 16, got 17"],
    [["boot", "--kernel", kernel, "--vcpus", "2.5"], `"integer"`],
    [["boot", "--kernel", kernel, "--vcpus", "x"], `"integer"`],
    [["boot", "--kernel", kernel, "--vcpus", "NaN"], `must be of type "integer", but got "NaN"`],
    [["boot", "--kernel", kernel, "--vcpus", "3n"], `must be of type "integer", but got "3n"`],
    [["boot", "--kernel", kernel, "--vcpus=-1"], "vcpus: expected 1 to 16, got -1"],
    [["boot", "--kernel", kernel, "--cpus=-1"], "cpus: expected 1 to 8, got -1"],
    [["boot", "--kernel", kernel, "--cpus", "2.5"], `must be of type "integer", but got "2.5"`],
    [
      ["boot", "--kernel", kernel, "--vcpus", "2", "--cpuid", "apic=0"],
      "cpuid: apic is off, and without it only the first of 2 processors can be started",
    ],
    [
      ["boot", "--kernel", kernel, "--cpuid", "1.ebx=0x1000000"],
      "bits 0x1000000 are of the APIC id",
    ],
    [["boot", "--kernel", kernel, "--cpus", "0"], "cpus: expected 1 to 8, got 0"],
    [["boot", "--kernel", kernel, "--cpus", "9"], "cpus: expected 1 to 8, got 9"],
    [
      ["boot", "--kernel", kernel, "--type", "bare", "--cpus", "2", "--vcpus", "3"],
      "vcpus: expected 1 to 2 (a bare guest's are the host's processors), got 3",
    ],
    [
      ["boot", "--kernel", kernel, "--type", "bare", "--vcpus", "9"],
      "vcpus: expected 1 to 8 (a bare guest's are the host's processors), got 9",
    ],
    [["boot", "--kernel", kernel, "--timeout", "-1"], "--timeout"],
    [["boot", "--kernel"], "--kernel"],
    [["run"], "file"],
    [["run", "/no/such.ts"], "no such file"],
    [["create", "/no/such.cfg"], "no such file"],
    [["repl", "/no/such.ts"], "no such file"],
  ];
  for (const [args, part] of wrong) {
    const { code, err } = await run(...args);
    assertEquals(code, 2, args.join(" "));
    assertStringIncludes(err, part);
    assertMatch(err, /^xvm.*\nxvm.* --help tells more\n$/);
  }
});

Deno.test("xvm create refuses a file without a kernel, or that cannot be read", async () => {
  const file = `${await Deno.makeTempDir()}/a.cfg`;
  await Deno.writeTextFile(file, `name = "a"`);
  assertStringIncludes((await run("create", file)).err, "names no kernel");
  await Deno.writeTextFile(file, `name = `);
  const { code, err } = await run("create", file);
  assertEquals(code, 2);
  assertStringIncludes(err, "expected a value, got the end");
});

Deno.test("xvm --version and --help exit with 0", async () => {
  const [version, help] = await Promise.all([xvm(["--version"]), xvm(["boot", "--help"])]);
  assertEquals([version.code, help.code], [0, 0]);
  assertMatch(version.out, /^\d+\.\d+\.\d+\n$/);
  for (const option of ["--kernel", "--until", "--paging", '(default: "256M")']) {
    assertStringIncludes(help.out, option);
  }
});

Deno.test("xvm run gives arguments to the script and its exit status to the caller", async () => {
  const file = `${await Deno.makeTempDir()}/script.ts`;
  await Deno.writeTextFile(
    file,
    `import { assert } from "@std/assert";
     assert(import.meta.main);
     console.log(Deno.args.join("|"));
     Deno.exit(7);`,
  );
  const { code, out } = await xvm(["run", file, "a", "--b", "-c"]);
  assertEquals([code, out], [7, "a|--b|-c\n"]);
});

Deno.test("xvm repl evaluates -c and a pipe, and exits with 1 when something throws", async () => {
  const [good, bad, pipe, broken] = await Promise.all([
    xvm(["repl", "-c", "const a: bigint = 1n << 40n; a"]),
    xvm(["repl", "-c", "nosuch"]),
    xvm([], "function f(x: number) {\n  return x + 1\n}\nf(1)\nawait Promise.resolve('two')\n"),
    xvm(["repl"], "f(\n"),
  ]);
  assertEquals([good.code, good.out], [0, "0x10000000000n\n"], good.err);
  assertEquals([bad.code, bad.out], [1, ""]);
  assertEquals(bad.err, "Uncaught ReferenceError: nosuch is not defined\n");
  assertEquals([pipe.code, pipe.out], [0, `2\n"two"\n`], pipe.err);
  assertEquals(broken.code, 1);
  assertStringIncludes(broken.err, "ends in the middle");
});

Deno.test("no error is lost at the end of input, in a preloaded file, or in a callback", async () => {
  const folder = await Deno.makeTempDir();
  const file = async (name: string, text: string) => {
    await Deno.writeTextFile(`${folder}/${name}`, text);
    return `${folder}/${name}`;
  };
  const throws = await file("throws.ts", "let a = 1;\n\nthrow new Error('preload')");
  const rejects = await file("rejects.ts", "void Promise.reject(new Error('let go'));");
  const inner = await file("inner.ts", `.load ${throws}\n`);
  const ends = await file("ends.ts", ".exit 3\n");
  const cases: [args: string[], input: string, code: number, err: RegExp][] = [
    [["-c", `dom.until("hlt", { bogus: 1 }); 1`], "", 1, /^Uncaught TypeError: .*bogus/],
    [["-c", `setTimeout(() => { throw new Error("late") }, 2)`], "", 1, /^Uncaught Error: late\n/],
    [["-c", `import("./nosuch.ts"); 1`], "", 1, /^Uncaught TypeError: Module not found/],
    [[], `Promise.reject(1); 1\n2\n`, 1, /^Uncaught 1\n$/],
    [[throws, "-c", "1"], "", 1, /^Uncaught Error: preload\n {4}at \S+throws.ts:3\n$/],
    [[throws], "1\n", 1, /^Uncaught Error: preload\n/],
    [[inner, "-c", "1"], "", 1, /^Uncaught Error: preload\n/],
    [["-c", `.load ${throws}`], "", 1, /^Uncaught Error: preload\n/],
    [[rejects, "-c", "1"], "", 1, /^Uncaught Error: let go\n/],
    [[ends, "-c", "nosuch"], "", 3, /^$/],
    [
      ["-c", `dom.trace("io", {}, async () => { throw 1 }); await dom.until("hlt"); 1`],
      "",
      1,
      /^Uncaught Error: trace 1 \(io\): its action failed, and it is off now\nCaused by: 1\n$/,
    ],
  ];
  for (const [args, input, wanted, message] of cases) {
    const { code, err } = await xvm(["repl", ...args], input);
    assertMatch(err, message, args.join(" "));
    assertEquals(code, wanted, args.join(" "));
  }
});
