/**
 * The command line as a person meets it: wrong arguments, broken files, and guests that misbehave. Each
 * gives one clear message and the right exit status, and leaves the shell usable.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Session } from "../../repl/session.ts";
import { prelude } from "../../repl/prelude.ts";
import { demoGuest } from "../../src/builder/demo.ts";

const MAIN = new URL("../../repl/main.ts", import.meta.url).pathname;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;

interface Ended {
  code: number;
  out: string;
  err: string;
}

function start(args: string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-A", "--no-check", "--config", CONFIG, MAIN, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
}

async function xvm(args: string[], input = ""): Promise<Ended> {
  const child = start(args);
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const timer = setTimeout(() => child.kill("SIGKILL"), 60_000);
  const { code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

/** A message for people: no stack of ours, and short. */
function assertMessage({ err }: Ended, wanted: RegExp): void {
  assertMatch(err, wanted);
  assert(!/^\s+at (?:async )?\S+ \(?(?:file|ext):/m.test(err), `a stack: ${err}`);
  assert(err.trimEnd().split("\n").length <= 6, `too long: ${err}`);
}

/** A ROM of 64 KB whose code is entered from the reset vector. */
function rom(code: number[]): Uint8Array {
  const bytes = new Uint8Array(65536);
  bytes.set(code, 0xe000);
  bytes.set([0xea, 0x00, 0xe0, 0x00, 0xf0], 0xfff0); // jmp F000:E000
  return bytes;
}

/** A gzip stream whose only block says that it is longer. */
const CUT_GZIP = new Uint8Array(4000);
CUT_GZIP.set([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0, 0xff, 0xff, 0, 0]);

const NO_IDT = [0x0f, 0x01, 0x1e, 0x00, 0x00]; // lidt [0]: limit 0
const GUESTS: Record<string, Uint8Array> = {
  "loop.rom": rom([0xfa, 0xeb, 0xfe]), // cli; jmp $
  "reset.rom": rom([0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe]), // mov al, 0FEh; out 64h, al; jmp $
  "triple.rom": rom([...NO_IDT, 0xcc]), // int3
  "undefined.rom": rom([...NO_IDT, 0x0f, 0x3f]), // no instruction
  "random.bin": Uint8Array.from({ length: 200_000 }, (_, i) => (i * 2654435761) >>> 13),
  "empty.bin": new Uint8Array(0),
  "demo.bin": demoGuest().image,
  "cut.cpio.gz": CUT_GZIP,
};

const folder = await Deno.makeTempDir({ prefix: "xvm-cli-" });
for (const [name, bytes] of Object.entries(GUESTS)) {
  await Deno.writeFile(`${folder}/${name}`, bytes);
}
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
const file = (name: string) => `${folder}/${name}`;
const boot = (name: string, ...more: string[]) => ["boot", "--kernel", file(name), ...more];

const REFUSED: [what: string, args: string[], code: number, message: RegExp][] = [
  ["a missing file", boot("nosuch"), 2, /^xvm boot: \S+nosuch: no such file$/m],
  ["a folder", ["boot", "--kernel", folder], 2, /: is no file$/m],
  ["no kernel", ["boot"], 2, /^xvm boot: .*--kernel/m],
  ["a wrong option", boot("demo.bin", "--frob"), 2, /^xvm boot: .*--frob/m],
  ["a wrong value", boot("demo.bin", "--type", "x"), 2, /bare, hvm, pvh, pv.*"x"/],
  ["a wrong size", boot("demo.bin", "--memory", "7q"), 2, /--memory: .*256M.*"7q"/],
  ["a wrong time", boot("demo.bin", "--timeout", "-1"), 2, /--timeout/],
  ["a wrong command", ["frobnicate"], 2, /frobnicate/],
  ["a missing script", ["repl", "nosuch.ts"], 2, /^xvm repl: nosuch\.ts: no such file$/m],
  ["a missing program", ["run", "nosuch.ts"], 2, /^xvm run: nosuch\.ts: no such file$/m],
  [
    "a missing configuration",
    ["create", "nosuch.cfg"],
    2,
    /^xvm create: nosuch\.cfg: no such file$/m,
  ],
  ["a corrupt kernel", boot("random.bin"), 1, /random\.bin: kernel is .*expected a bzImage/],
  ["an empty kernel", boot("empty.bin"), 1, /empty\.bin: .*expected/],
  [
    "too little memory",
    boot("demo.bin", "--memory", "1M"),
    2,
    /^xvm boot: --memory: expected 2M to 3G in whole pages of 4K, got 1M$/m,
  ],
  [
    "a triple fault",
    boot("triple.rom", "--memory", "16M"),
    1,
    /^xvm boot: the guest stopped: crash \(triple fault\)/m,
  ],
  [
    "an undefined opcode",
    boot("undefined.rom", "--memory", "16M"),
    1,
    /crash \(triple fault\)\n {2}#UD: these bytes are no instruction/,
  ],
  [
    "a guest that loops with interrupts off",
    boot("loop.rom", "--memory", "16M", "--timeout", "0.3"),
    1,
    /^xvm boot: 0\.3 seconds passed$/m,
  ],
];

for (const [what, args, code, message] of REFUSED) {
  Deno.test(`xvm says it clearly: ${what}`, async () => {
    const ended = await xvm(args);
    assertMessage(ended, message);
    assertEquals(ended.code, code);
  });
}

/** A Debian kernel, where `xvm guests fetch 686` made one. */
const LINUX = `${Deno.env.get("HOME")}/.cache/xvm/guests/vmlinuz-686`;
const hasLinux = await Deno.stat(LINUX).then(() => true, () => false);

Deno.test({
  name: "xvm says it clearly: a truncated ramdisk, a truncated kernel",
  ignore: !hasLinux,
  fn: async () => {
    const first = await xvm(["boot", "--kernel", LINUX, "--ramdisk", file("cut.cpio.gz")]);
    assertMessage(
      first,
      /cut\.cpio\.gz: gzip data is cut off after 4,000 bytes; expected a whole gzip stream/,
    );
    assertEquals(first.code, 1);
    await Deno.writeFile(file("cut-kernel"), (await Deno.readFile(LINUX)).subarray(0, 100_000));
    const second = await xvm(["boot", "--kernel", file("cut-kernel")]);
    assertMessage(second, /cut-kernel: size is 100,000 bytes \(cut off\?\); expected/);
    assertEquals(second.code, 1);
  },
});

Deno.test("xvm boot --until ends with 0 when the console shows the text", async () => {
  for (const type of ["bare", "hvm"]) {
    const args = boot(
      "demo.bin",
      "--type",
      type,
      "--memory",
      "16M",
      "--until",
      "demo> ",
      "--stats",
    );
    const { code, out, err } = await xvm(args);
    assertEquals(code, 0, err);
    assertStringIncludes(out, "processor: GenuineIntel");
    const stats = JSON.parse(err);
    assert(stats.instructions > 1000, err);
    assertMatch(stats.state_hash, /^[0-9a-f]{16}$/);
  }
});

/** What each script says of the demo guest, or of its own. */
const SCRIPTS: [script: string, args: string[], wanted: RegExp][] = [
  ["boot", [], /power off\r?\n[\d,]+ instructions in .*, guest time .*, state [0-9a-f]{16}$/m],
  ["count_exits", [], /^the busiest places:\n(?: +\d+ {2}port 0x3f[8d] \w+\n){2}/m],
  ["cr3_writes", [], /^3 CR3 writes, 2 address spaces/m],
  ["device", [], /^the guest has ebx = 5555$/m],
  ["page_fault", [], /^=> page 0xd0000000: entry 0x0 is not present$/m],
  ["shadow_life", ["--paging", "shadow"], /^shadow paging: \d+ of 288 frames used/m],
  ["compare_vendors", [], /^the guest's state is the same$/m],
];
for (const [script, args, wanted] of SCRIPTS) {
  Deno.test(`scripts/${script}.ts does what it says`, async () => {
    const path = new URL(`../../scripts/${script}.ts`, import.meta.url).pathname;
    const { code, out, err } = await xvm(["run", path, ...args]);
    assertEquals([code, err], [0, ""]);
    assertMatch(out, wanted);
  });
}

Deno.test("ctrl-C ends a guest that loops, in a session without a prompt", async () => {
  const code = `
    await hv.createDomain({ name: "loop", kernel: ${
    JSON.stringify(file("loop.rom"))
  }, memory: "16M" })
    dom.trace("triple-fault")
    dom.unpause()
    console.log("started")
    c`;
  const child = start(["repl", "-c", code]);
  await child.stdin.close();
  let out = "";
  const started = Promise.withResolvers<void>();
  const reading = (async () => {
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      out += text;
      if (out.includes("started")) started.resolve();
    }
  })();
  await Promise.race([started.promise, reading]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  child.kill("SIGINT");
  const [{ code: status }, err] = await Promise.all([
    child.status,
    new Response(child.stderr).text(),
  ]);
  await reading;
  assertEquals(status, 1, err);
  assertStringIncludes(out, "loop is paused; c continues\n=> 0x000fe001:");
  assert(!/^\s+at /m.test(err), err);
});

Deno.test("the shell stays usable after each of them", async () => {
  let out = "";
  const session = new Session({ print: (text) => void (out += text) });
  prelude(session);
  const enter = async (input: string) => {
    out = "";
    const { ok } = await session.enter(input);
    return `${ok ? "" : "! "}${out.trimEnd()}`;
  };
  const create = (name: string, more = "") =>
    `await hv.createDomain({ name: "g", kernel: ${
      JSON.stringify(file(name))
    }, memory: "16M"${more} })`;
  const { interrupt } = session.evaluator;
  try {
    await enter(`hv = await Hypervisor.start({ memory: "128M" }); 0`);
    assertMatch(await enter(create("random.bin")), /^! .*expected a bzImage[^\n]*$/);
    assertMatch(await enter(create("nosuch")), /^! .*nosuch[^\n]*$/);
    assertMatch(await enter(create("loop.rom", ", frob: 1")), /^! .*frob[^\n]*it has:[^\n]*$/);
    assertMatch(await enter(create("loop.rom", `, type: "x"`)), /^! .*"hvm"[^\n]*"x"[^\n]*$/);

    await enter(create("triple.rom"));
    assertStringIncludes(await enter("c"), "triple fault");
    assertMatch(await enter("s"), /^! .*has ended/);
    assertMatch(await enter("r rip"), /^rip = 0x/);
    await enter("dom.destroy()");

    await enter(create("loop.rom"));
    setTimeout(() => interrupt.raise(), 200);
    assertMatch(await enter("c"), /^! g is paused; c continues\n=> 0x000fe001:/);
    setTimeout(() => interrupt.raise(), 200);
    assertMatch(await enter(`await dom.until("cpuid")`), /^! Interrupted\n/);
    setTimeout(() => interrupt.raise(), 200);
    assertMatch(await enter("until cpuid"), /^! Interrupted\n/);
    assertMatch(await enter("s"), /^=> 0x000fe001:/);
    await enter("dom.destroy()");

    await enter(create("undefined.rom"));
    assertStringIncludes(await enter("c"), "triple fault");
    assertStringIncludes(await enter("why"), "#UD: these bytes are no instruction");
    assertEquals(await enter("1 + 1"), "2");
  } finally {
    await enter("await hv.close()");
    session.evaluator.close();
  }
});

/** Writes a configuration beside the guests. */
async function config(name: string, text: string): Promise<string> {
  await Deno.writeTextFile(file(name), text);
  return file(name);
}

Deno.test("xvm create makes a domain from a file in the syntax of xl.cfg", async () => {
  const path = await config(
    "demo.cfg",
    `name = "demo"  # as xl has it
type = "hvm"; kernel = "${file("demo.bin")}"
memory = 16
cpu_weight = 512
disk = []`,
  );
  const { code, out, err } = await xvm(["create", path, "--until", "demo> ", "--stats"]);
  assertEquals(code, 0, err);
  // Its last line, which the guest has not ended, ends before the statistics.
  assertMatch(out, /^processor: GenuineIntel\r?\ndemo> \n$/m);
  assertEquals(JSON.parse(err).name, "demo");
  // The guest's own end is the command's: a key on standard input powers it off.
  const ended = await xvm(["create", path], "q");
  assertEquals(ended.code, 0, ended.err);
  assertStringIncludes(ended.err, "demo: poweroff (ACPI S5)");
});

Deno.test("xvm create makes several domains from several files, one of them typed", async () => {
  const first = await config(
    "one.cfg",
    `name = "one"; kernel = "${file("demo.bin")}"; memory = 16`,
  );
  const second = await config(
    "two.ts",
    `import type { DomainOptions, StartOptions } from "xvm";
    export default {
      name: "two",
      kernel: ${JSON.stringify(file("demo.bin"))},
      memory: "16M",
      weight: 512,
    } satisfies DomainOptions;
    export const host = { seed: 3 } satisfies StartOptions;`,
  );
  const { code, out, err } = await xvm(["create", first, second, "--until", "processor: "]);
  assertEquals(code, 0, err);
  // Lines that the guests have not ended, too.
  for (const name of ["one", "two"]) assertMatch(out, new RegExp(`^${name}: processor: `, "m"));
  const twice = await xvm(["create", first, first]);
  assertMessage(twice, /^xvm create: \S+one\.cfg: the name "one" is \S+one\.cfg's already$/m);
  assertEquals(twice.code, 2);
  const amd = await config("amd.cfg", `name = "amd"; kernel = "${file("demo.bin")}"; seed = 4`);
  const torn = await xvm(["create", second, amd]);
  assertMessage(torn, /^xvm create: \S+amd\.cfg: seed is 4, but \S+two\.ts has 3: /m);
});

Deno.test("xvm create does what on_reboot and on_crash say", async () => {
  const again = await config(
    "again.cfg",
    `name = "again"; kernel = "${file("reset.rom")}"; memory = 16`,
  );
  const { code, err } = await xvm(["create", again, "--timeout", "6"]);
  assertEquals(code, 1);
  assert(err.split("again: reset (").length > 2, err);
  assertStringIncludes(err, "; it starts again");
  const once = await config(
    "once.cfg",
    `name = "once"; kernel = "${file("reset.rom")}"; memory = 16; on_reboot = "destroy"`,
  );
  const ended = await xvm(["create", once]);
  assertMessage(ended, /^xvm create: the guest ended: once: reset \(/m);
  assertEquals(ended.code, 1);
});

Deno.test("xvm create says what is wrong in a file, and --dry-run what it comes to", async () => {
  const cases: [text: string, message: RegExp][] = [
    [`kernel = "k"\ndisk = [ "a" ]`, /bad\.cfg:2: disk: cannot be given: no block device/],
    [
      `kernel = "k"\nmemry = 4`,
      /bad\.cfg:2: memry: xl\.cfg has no such key; did you mean memory\?/,
    ],
    [`kernel = nosuch`, /bad\.cfg:1: expected a string in quotes/],
    [`memory = 16`, /bad\.cfg: names no kernel/],
    [`kernel = "nosuch"`, /bad\.cfg: kernel: nosuch: no such file/],
    [
      `kernel = "${file("demo.bin")}"; memory = 16; vcpus = 17`,
      /vcpus: .*1 to 16/,
    ],
    [
      `kernel = "${file("demo.bin")}"; memory = 16; type = "bare"; vcpus = 9`,
      /9 vCPUs were asked for, but a bare guest's are the host's processors/,
    ],
    [
      `kernel = "${file("demo.bin")}"; memory = 16; type = "pv"`,
      /type "pv" was asked for.*not available yet/,
    ],
  ];
  for (const [text, message] of cases) {
    const ended = await xvm(["create", await config("bad.cfg", text)]);
    assertMessage(ended, message);
    assert(ended.code > 0);
  }
  const broken = await xvm(["create", await config("bad.ts", "export default 5;")]);
  assertMessage(broken, /bad\.ts: the default export has to be a configuration/);
  const unknown = await xvm([
    "create",
    await config(
      "odd.ts",
      `export default { kernel: ${JSON.stringify(file("demo.bin"))}, frob: 1 }`,
    ),
  ]);
  assertMessage(unknown, /createDomain: there is no "frob"; it has: name, type/);
  const dry = await xvm([
    "create",
    "-n",
    await config("dry.cfg", `kernel = "${file("demo.bin")}"; memory = 16; cap = 40`),
  ]);
  assertEquals(dry.code, 0, dry.err);
  assertStringIncludes(dry.out, '"cap": 40');
  assertMatch(dry.out, /^keys of xl\.cfg: name type .* cpu_weight/m);
});

Deno.test("domains shows several with their shares, and weight changes one", async () => {
  let out = "";
  const session = new Session({ print: (text) => void (out += text) });
  prelude(session);
  const enter = async (input: string) => {
    out = "";
    const { ok } = await session.enter(input);
    return `${ok ? "" : "! "}${out.trimEnd()}`;
  };
  try {
    await enter(`hv = await Hypervisor.start({ memory: "128M" }); 0`);
    for (const name of ["one", "two"]) {
      await enter(
        `await hv.createDomain({ name: "${name}", kernel: ${
          JSON.stringify(file("loop.rom"))
        }, memory: "16M" })`,
      );
    }
    assertMatch(
      await enter("domains"),
      /^name +id +memory +vcpus +state +weight +cap +cpu +instructions\none +1 +16 MB +1 +paused +256 +none +0\.0 % +0\ntwo +2/,
    );
    assertEquals(await enter("weight two 768"), "domain 2 (two) has weight 768");
    assertEquals(await enter("weight one"), "domain 1 (one) has weight 256");
    assertMatch(await enter("weight two 0"), /^! weight: a number from 1 to 65535 .*, not 0$/);
    assertMatch(await enter("weight three 5"), /^! weight: there is no domain three; there are: 1/);
    await enter("for (const d of hv.domains) d.unpause()");
    await enter("await new Promise((r) => setTimeout(r, 1500))");
    await enter("for (const d of hv.domains) d.pause()");
    // Three to one, as long as a turn is short beside the time they had.
    const share = Number(await enter("hv.domains[1].cpuShare / hv.domains[0].cpuShare"));
    assert(share > 2 && share < 4, `${share}`);
  } finally {
    await enter("await hv.close()");
    session.evaluator.close();
  }
});
