import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Hypervisor } from "xvm";
import { kindHelp, kindText } from "../src/debug/kind_help.ts";
import { kinds } from "../src/debug/kinds.ts";
import { severalOf } from "../src/debug/testing/several.ts";
import { runBatch } from "./batch.ts";
import { COMMANDS } from "./commands/registry.ts";
import { wordsOf } from "./commands/parse.ts";
import { Session } from "./session.ts";
import { FakeHost } from "./testing.ts";

async function withSession(fn: (it: Tested) => Promise<void>) {
  const host = new FakeHost();
  let printed = "";
  const session = new Session({ print: (text) => void (printed += text) });
  session.use(host);
  const enter = async (input: string) => {
    printed = "";
    const { ok } = await session.enter(input);
    return (ok ? "" : "! ") + printed.trimEnd();
  };
  try {
    await fn({ session, host, enter, printed: () => printed });
  } finally {
    session.evaluator.close();
  }
}

interface Tested {
  session: Session;
  host: FakeHost;
  enter: (input: string) => Promise<string>;
  /** What was printed since the last input began. */
  printed: () => string;
}

Deno.test("s steps, shows where, and is what Enter repeats", () =>
  withSession(async ({ session, enter }) => {
    const here = await enter("s 3");
    assertEquals(here, "=> 0xc0100003 <start_kernel+0x3>:  90                   nop");
    assertEquals((await session.enter("si 2")).again, "si");
    assertEquals((await session.enter("r")).again, undefined);
    assertEquals(await enter("s x"), `! s: expected a whole number above 0, got "x"`);
  }));

Deno.test("a command never hides what the user named", () =>
  withSession(async ({ enter }) => {
    assertEquals(await enter("x = 5"), "x is a variable now; the command x is .x\n5");
    assertEquals(await enter("x"), "5");
    assertEquals(await enter("x/2"), "2.5");
    assertStringIncludes(await enter("x/2xw 0x100"), "0x00000100:  0x03020100  0x07060504");
    assertStringIncludes(await enter("const sout = 1; sout"), "\n1");
    assertStringIncludes(await enter("k => 1"), "Function");
    await enter("delete globalThis.x");
  }));

Deno.test("a variable with a command's name is told, and the command stays by its dot", () =>
  withSession(async ({ session, enter }) => {
    const here = await enter("s");
    assertEquals(await enter("let s = 5"), "s is a variable now; the command s is .s");
    assertEquals(await enter("s"), "5");
    assertEquals(await enter("let s = 6; s"), "6", "said once");
    const stepped = await enter(".s 2");
    assert(/^=> 0xc010000\d/.test(stepped) && stepped !== here, stepped);
    assertEquals((await session.enter(".s")).again, ".s");
    assertStringIncludes(await enter("const { x } = { x: 1 }"), "the command x is .x");
    assertStringIncludes(await enter(".x/2xw 0x100"), "0x00000100:  0x03020100  0x07060504");
    await enter("delete s; delete x");
  }));

Deno.test("b takes addresses, symbols and kinds with filters", () =>
  withSession(async ({ host, enter }) => {
    const { log } = host.domains[1];
    await enter("b start_kernel+0x10");
    await enter("b cr cr=3 write !read");
    await enter("b cpuid {leaf: 1}");
    await enter("b 0x10 if stop.regs.rax === 1n");
    assertEquals(log, [
      "break execute { address: 3222274064n }",
      "break cr { cr: 3, write: true, read: false }",
      "break cpuid { leaf: 1 }",
      "break execute { address: 16n } if",
    ]);
    assertEquals((await enter("bl")).split("\n").length, 5);
    assertEquals(await enter("bd 2"), "deleted 1");
    assertEquals(await enter("bd 2"), "! bd: there is no breakpoint 2; there are: 1, 3, 4");
    assertStringIncludes(await enter("b 0x10 write"), "! b: 0x10 is taken for an address");
    assertStringIncludes(
      await enter("b nosuch"),
      "! b: nosuch is no kind of exit, and no register, symbol or variable is named nosuch",
    );
    assertEquals(
      await enter("watch jiffies 4"),
      "watchpoint 4: address=0xc0300000 length=4 !read write",
    );
  }));

Deno.test("until and trace take the same filters", () =>
  withSession(async ({ host, enter }) => {
    await enter("until io port=0x3f8 write");
    await enter("until start_kernel");
    assertEquals(host.domains[1].log, [
      "until io { port: 1016, write: true }",
      "until execute { address: 3222274048n }",
    ]);
    assertStringIncludes(await enter("trace msr"), `{ kind: "msr" }`);
    assertStringIncludes(await enter("trace sneeze"), "! trace: sneeze is no kind of exit");
  }));

Deno.test("x shows memory in gdb's formats, and goes on where it stopped", () =>
  withSession(async ({ host, enter }) => {
    assertEquals(
      await enter("x/2xg 0x1000"),
      "0x00001000:  0x0706050403020100  0x0f0e0d0c0b0a0908",
    );
    assertEquals(await enter("x"), "0x00001010:  0x1716151413121110  0x1f1e1d1c1b1a1918");
    assertEquals(await enter("x/4db rsp-1"), "0x00001fff:    -1     0     1     2");
    assertStringIncludes(await enter("x/4xb 0x41"), "41 42 43 44  ABCD");
    host.domains[1].memory.write(0n, new TextEncoder().encode("hi\0"));
    assertEquals(await enter("xp/s 0"), `0x00000000:  "hi"`);
    assertStringIncludes(await enter("x/2i start_kernel"), "<start_kernel+0x1>");
    assertStringIncludes(await enter("x/3q 0"), `! x/3q: "q" is neither a format`);
    assertEquals(await enter("x/xw f000:0010"), "0x000f0010:  0x13121110");
  }));

Deno.test("e writes memory, find finds it", () =>
  withSession(async ({ host, enter }) => {
    assertEquals(await enter("e/w 0x5000 0x464c457f -1"), "8 bytes written at 0x00005000");
    assertEquals(await enter('find 0x4f00 0x200 "\\u007fELF"'), "0x00005000");
    assertEquals(await enter("find/w 0x4000 0x100 7"), "not found");
    assertEquals(await enter("e 0 256"), "! 256 does not fit in 1 byte");
    await enter(`ep 0x10 "A" 0x42`);
    assertEquals(host.domains[1].memory.read(0x10, 2), new Uint8Array([0x41, 0x42]));
  }));

Deno.test("r shows and sets registers", () =>
  withSession(async ({ host, enter }) => {
    assertEquals(await enter("r cr3 $rax"), "cr3 = 0x00005000\nrax = 0x00000001");
    assertEquals(await enter("r rax = cr3 + 0x10"), "rax = 0x00005010");
    assertEquals(host.domains[1].vcpus[0].regs.rax, 0x5010n);
    assertEquals(await enter("r nosuch"), "! r: there is no register nosuch");
  }));

Deno.test("pt, why, exits, vmcs, bt and u show what the API gives", () =>
  withSession(async ({ host, enter }) => {
    assertEquals(await enter("pt cr3"), "{ walked: 0x5000n }");
    assertEquals(await enter("pt"), `{ mapped: "all" }`);
    assertStringIncludes(await enter("why"), "#GP(0x10)");
    assertEquals(await enter("exits"), "{ cr: 3, io: 5 }");
    assertEquals(await enter("vmcs qualif"), "exitQualification  0x3");
    assertStringIncludes(await enter("vmcs zzz"), "! vmcs: no field's name contains zzz");
    const { regs, memory } = host.domains[1].vcpus[0];
    [regs.rbp, regs.rip] = [0x3000n, 0xc0100004n];
    memory.write(0x3000, new Uint8Array([0, 0x31, 0, 0, 0x50, 0, 0x10, 0xc0]));
    memory.write(0x3100, new Uint8Array(8));
    assertEquals(
      await enter("bt"),
      "#0  0xc0100004 <start_kernel+0x4>\n#1  0xc0100050 <start_kernel+0x50>",
    );
    regs.rip = 0xc0100000n;
    memory.write(0x2000, new Uint8Array([0x60, 0, 0x10, 0xc0]));
    assertStringIncludes(await enter("bt"), "#1  0xc0100060 <start_kernel+0x60>\n#2  0xc0100050");
    assertEquals((await enter("u start_kernel 2")).split("\n").length, 2);
    assertStringIncludes(await enter("u +"), "0xc0100002");
    assertStringIncludes(await enter("rs"), "! rs: going backwards is not available yet");
  }));

Deno.test("dom chooses the domain of commands, of dom and of vcpu", () =>
  withSession(async ({ host, session, enter }) => {
    assertEquals(await enter("dom.name"), `"second"`);
    assertEquals(await enter("dom 1"), "domain 1 (first), vCPU 0, paused");
    assertEquals(await enter("dom.name"), `"first"`);
    assert(session.vcpu() === host.domains[0].vcpus[0]);
    assertStringIncludes(await enter("dom 7"), "there are: 1 (first), 2 (second)");
    await enter("dom = hv.domains[1]");
    await enter("s");
    assert(session.domain() === host.domains[1], "the user's dom is the commands' dom");
  }));

Deno.test("vcpu chooses the vCPU of commands; a stop makes its own the current one, and says which", async () => {
  await using host = await severalOf({ cpu: "amd", paging: "hap" }, 2, { cpus: 2 });
  await withSession(async ({ session, enter }) => {
    const { hv, dom } = host, [one, other] = dom.vcpus;
    session.use(hv);
    assertMatch(
      await enter("until work vcpu=1"),
      /^execute .*\n +guest, vCPU 1, .*\n=> .*\n +vCPU 0 running at 0x0010/,
    );
    assert(session.vcpu() === other);
    assertEquals(await enter("vcpu.id"), "1");
    assertMatch(await enter("vcpu 0"), /^vCPU 0\n=> 0x0010/);
    assert(session.vcpu() === one);
    assertEquals(await enter("r rip"), `rip = 0x${one.regs.rip.toString(16).padStart(8, "0")}`);
    const before = [one.instructions, other.instructions];
    assertMatch(await enter("s 3 alone"), /^vCPU 0\n=> 0x0010/);
    assertEquals([one.instructions, other.instructions], [before[0] + 3, before[1]]);
    // What code at the prompt stops at, too.
    await enter(`await dom.until("execute", { address: "count", vcpu: 1 })`);
    assert(session.vcpu() === other);
    assertMatch(await enter("se"), /^cpuid .*\n +guest, vCPU 1, /);
    assertEquals(
      await enter("b count vcpu=0"),
      "breakpoint 1: execute address=" +
        `0x${dom.symbols!.address("count")!.toString(16).padStart(8, "0")} <count> vcpu=0`,
    );
    assertMatch(await enter("c"), /vCPU 0/);
    assert(session.vcpu() === one);
    assertEquals(await enter("vcpu 2"), "! vcpu: domain 1 has no vCPU 2; it has 0 to 1");
    assertEquals(await enter("vcpu 1 2"), "! vcpu: a number was expected, one");
    assertMatch(await enter("watch 0x7000 4 w vcpu=1"), /vcpu=1/);
    assertMatch(await enter("dom.vcpus"), /^vcpu +processor +state/);
    const turns = await enter("schedule 3");
    assertMatch(turns, /^the last 3 turns of \d+:\nfrom instruction .*(\n +\d+ +0\.\d+ s .*){3}$/);
    assertEquals(await enter("schedule 3 {last: 2}"), await enter("schedule 2"));
    assertEquals(await enter("schedule vcpu=1 2"), await enter("schedule 2 { vcpu: 1 }"));
    assertMatch(await enter("schedule vcpu=1 2"), /(\n +\d+ +0\.\d+ s +1 +1 .*){2}$/);
    assertMatch(await enter("schedule none"), /^! schedule: expected a whole number above 0/);
    assertMatch(
      await enter("schedule cpu=1"),
      /^! schedule: there is no "cpu"; did you mean "vcpu"/,
    );
  });
});

Deno.test("of a closed host, and a destroyed domain, commands say what is the matter", async () => {
  await using hv = await Hypervisor.demo();
  await withSession(async ({ session, enter }) => {
    session.use(hv);
    await enter("s");
    const [dom] = hv.domains;
    session.select(dom);
    dom.destroy();
    for (
      const input of [
        "s",
        "c",
        "r",
        "r rip",
        "x/2xw 0x1000",
        "u",
        "bt",
        "pt",
        "b 0x10",
        "vcpu.regs",
      ]
    ) {
      assertMatch(await enter(input), /domain demo is destroyed, since instruction [1-9]/, input);
    }
    assertStringIncludes(await enter("dom"), `domain 1 "demo" (hvm), destroyed`);
    const other = await Hypervisor.demo();
    await enter("s");
    session.use(other);
    await other.close();
    assertEquals(await enter("s"), "! hv is closed; start another: hv = await Hypervisor.start()");
    assertMatch(await enter("hv"), /^this hypervisor is closed, since instruction/);
    assertMatch(await enter("await hv.createDomain({ kernel: 'x' })"), /closed, since instruction/);
  });
});

Deno.test("that an answer of a device came too late is said, once for each domain", () =>
  withSession(async ({ session, enter, printed }) => {
    await using hv = await Hypervisor.demo();
    const [dom] = hv.domains;
    session.use(hv);
    const answers: (() => void)[] = [];
    dom.ioreq.serve({ port: [0x3f8, 0x3f8] }, {
      write: () => new Promise<void>((resolve) => answers.push(resolve)),
    });
    const told: string[] = [];
    dom.ioreq.onDropped((text) => told.push(text));
    for (let n = 0; n < 3; n++) {
      const run = dom.continue();
      while (answers.length <= 2 * n) await new Promise((resolve) => setImmediate(resolve));
      dom.pause();
      await run;
      // The guest goes on behind its OUT.
      dom.vcpus[0].regs.rip += 1n;
      const again = dom.continue();
      while (answers.length <= 2 * n + 1) await new Promise((resolve) => setImmediate(resolve));
      answers[2 * n]();
      await new Promise((resolve) => setImmediate(resolve));
      dom.pause();
      await again;
      answers[2 * n + 1]();
      await new Promise((resolve) => setImmediate(resolve));
    }
    assertEquals(told, dom.ioreq.dropped);
    assert(told.length >= 3, `${told.length}`);
    const said = printed().split("\n").filter((line) => line.includes("late answer"));
    assertEquals(said.length, 1);
    assertMatch(
      said[0],
      /^demo: the late answer to the write of 1 byte at port 0x3f8 is dropped: .*dom\.ioreq\.dropped/,
    );
    assertEquals(await enter("1"), "1");
  }));

Deno.test("diff takes one file of a state or two", () =>
  withSession(async ({ enter }) => {
    const [one, two] = await Promise.all([1, 2].map(() => Deno.makeTempFile()));
    try {
      await Deno.writeFile(one, new Uint8Array(3));
      await Deno.writeFile(two, new Uint8Array(5));
      assertStringIncludes(await enter(`diff ${one}`), "3 bytes, now");
      assertStringIncludes(await enter(`diff ${one} ${two}`), "3 bytes, 5 bytes");
      assertStringIncludes(await enter("diff"), "diff: one file or two are needed, got 0");
      assertStringIncludes(
        await enter("diff no.state"),
        "diff: cannot read no.state: no such file or folder",
      );
    } finally {
      for (const file of [one, two]) await Deno.remove(file);
    }
  }));

Deno.test("ctrl-C leaves c, and pauses the domain", () =>
  withSession(async ({ host, session, enter }) => {
    const timer = setInterval(() => {
      if (host.domains[1].state !== "running") return;
      clearInterval(timer);
      session.evaluator.interrupt.raise();
    }, 1);
    assertEquals(
      await enter("c"),
      "! Interrupted\nsecond is paused; c continues\n" +
        "=> 0xc0100000 <start_kernel>:  90                   nop",
    );
    assertEquals(host.domains[1].state, "paused");
  }));

Deno.test("the example of each kind can be typed, and .help tells of the kind", async () => {
  await using hv = await Hypervisor.demo();
  let out = "";
  const session = new Session({ print: (text) => void (out += text) });
  session.use(hv);
  try {
    for (const kind of kinds) {
      const { example } = kindHelp(kind);
      out = "";
      const { ok } = await session.enter(example);
      const absent = /has no exits of kind|has nested paging|knows nothing of Xen/;
      if (!ok) assertMatch(out, absent, example);
      out = "";
      assert((await session.enter(`.help ${kind}`)).ok);
      assertStringIncludes(out, kindText(kind));
    }
  } finally {
    session.evaluator.close();
  }
});

Deno.test("every command has help, and .help names all", () =>
  withSession(async ({ enter }) => {
    const overview = await enter(".help");
    for (const { name, usage, summary, help } of COMMANDS) {
      assertStringIncludes(overview, summary);
      assertStringIncludes(await enter(`.help ${name}`), usage.split("\n")[0]);
      assert(help.length > 20, name);
    }
    assertEquals(
      await enter(".nothing"),
      "! there is no command .nothing; there are: .help .load .save .attach .exit .quit",
    );
  }));

Deno.test(".save writes inputs, .load runs them", () =>
  withSession(async ({ enter }) => {
    const file = `${await Deno.makeTempDir()}/session.ts`;
    await enter("const t_saved: number = 7;");
    await enter("r rax = 9");
    assertStringIncludes(await enter(`.save ${file}`), "2 inputs");
    await Deno.writeTextFile(file, "t_saved + 1\n", { append: true });
    assertStringIncludes(await enter(`.load ${file}`), "rax = 0x00000009\n8");
    assertStringIncludes(await enter(".load /no/such"), "! .load: cannot read /no/such");
  }));

Deno.test("runBatch() prints results, and ends with 1 at what throws", () =>
  withSession(async ({ session }) => {
    async function* lines(...them: string[]) {
      yield* them;
    }
    assertEquals(await runBatch(session, lines("function t_f() {", "return 1 }", "t_f()")), 0);
    assertEquals(session.inputs.length, 2);
    assertEquals(await runBatch(session, lines("nosuch()", "t_never = 1")), 1);
    assert(!session.evaluator.variables.has("t_never"));
    assertEquals(await runBatch(session, lines("(1 +")), 1);
    assertEquals(await runBatch(session, lines(".exit 3")), 3);
  }));

Deno.test("wordsOf() keeps brackets and quotes together", () => {
  assertEquals(wordsOf(`io {port: 1, x: [1, 2]} "a b" c`), [
    "io",
    "{port: 1, x: [1, 2]}",
    `"a b"`,
    "c",
  ]);
});
