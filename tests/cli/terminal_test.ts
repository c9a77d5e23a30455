/**
 * The real program at a terminal, as a person meets it: what the guest writes is not lost, ctrl-C acts,
 * the console is given and taken back. tmux is the terminal.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { demoGuest } from "../../src/builder/demo.ts";
import { hasTmux, Tmux } from "./tmux.ts";

const root = new URL("../../", import.meta.url).pathname;
const folder = await Deno.makeTempDir({ prefix: "xvm-terminal-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** A ROM of 64 KB whose code is entered from the reset vector. */
function rom(code: number[]): Uint8Array {
  const bytes = new Uint8Array(65536);
  bytes.set(code, 0xe000);
  bytes.set([0xea, 0x00, 0xe0, 0x00, 0xf0], 0xfff0); // jmp F000:E000
  return bytes;
}

const GUESTS: Record<string, Uint8Array> = {
  // Says on COM1 what it is told there: mov dx, 3FDh; in al, dx; test al, 1; jz; mov dl, F8h; in; out
  "echo.rom": rom([0xba, 0xfd, 3, 0xec, 0xa8, 1, 0x74, 0xfb, 0xb2, 0xf8, 0xec, 0xee, 0xeb, 0xf2]),
  // mov dx, 3F8h; mov al, 'x'; out dx, al; jmp
  "flood.rom": rom([0xba, 0xf8, 3, 0xb0, 0x78, 0xee, 0xeb, 0xfd]),
  "loop.rom": rom([0xfa, 0xeb, 0xfe]), // cli; jmp $
  // in al, 60h would be a key; here: mov dx, 3FDh; in; test; jz; then 64h <- FEh: reset
  "reset.rom": rom([0xba, 0xfd, 3, 0xec, 0xa8, 1, 0x74, 0xfb, 0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe]),
  "demo.bin": demoGuest().image,
};
for (const [name, bytes] of Object.entries(GUESTS)) {
  await Deno.writeFile(`${folder}/${name}`, bytes);
}

/** A test of the program; skipped where there is no terminal to be had. */
function atTerminal(
  name: string,
  args: string,
  fn: (it: Tmux) => Promise<void>,
  size: { columns?: number; rows?: number } = {},
): void {
  Deno.test({
    name: hasTmux ? name : `${name} (skipped: no tmux on this machine)`,
    ignore: !hasTmux,
    fn: async () => {
      const command = `${Deno.execPath()} run -q -A --no-check --config ${root}deno.json ` +
        `${root}repl/main.ts ${args}`;
      const env = { NO_COLOR: "1", XVM_CACHE: await Deno.makeTempDir({ dir: folder }) };
      await using tmux = await Tmux.start(command, { ...size, env });
      await fn(tmux);
    },
  });
}

const PROMPT = /^xvm demo>$/m;
const guest = (name: string) =>
  `hv = await Hypervisor.start({ memory: "64M" }); dom = await hv.createDomain({ name: "demo", ` +
  `kernel: "${folder}/${name}", memory: "2M" }); 0`;

/** The prompt with a guest on it that runs. */
async function withGuest(it: Tmux, name: string): Promise<void> {
  await it.shows(PROMPT);
  await it.enter(guest(name));
  await it.shows(/^0$/m);
  await it.press("C-l");
  await it.enter("go");
}

atTerminal("a guest's text stands above the prompt, however it is cut", "", async (it) => {
  await withGuest(it, "echo.rom");
  const text = "one\r\ntwo\r\n\tthree\x1b[1;31m!\x1b[0m\r\nfünf 界\r\n\x1b[6n50 %\r100 %\r\n";
  // Each byte is a write, and so a chunk, of its own; in a turn of its own.
  await it.enter(
    `for (const byte of new TextEncoder().encode(${JSON.stringify(text)})) { ` +
      `dom.console.write(Uint8Array.of(byte)); await new Promise((r) => setTimeout(r, 2)); }; 0`,
  );
  const { screen } = await it.shows(/100 %\n(?:.*\n)*xvm demo>$/, 60_000);
  const shown = screen.split("\n");
  const at = shown.lastIndexOf("one");
  assertEquals(shown.slice(at, at + 5), ["one", "two", "        three!", "fünf 界", "100 %"]);
  assert(!/[0-9]+;[0-9]+R/.test(screen), `an answer of the terminal was typed:\n${screen}`);
});

atTerminal("what is typed to a guest in pieces comes back whole", "", async (it) => {
  await withGuest(it, "echo.rom");
  for (let n = 0; n < 10; n++) {
    await it.enter(`dom.console.write("a${n}\\r\\nb${n}\\r\\nc${n}\\r\\n")`);
  }
  const { screen } = await it.shows(/c9\n(?:.*\n)*xvm demo>$/);
  // A line that is open when another is typed goes on behind that.
  const typed = screen.split("\n").filter((line) => !/^xvm|^-D|^0$|^omain|^ory/.test(line));
  const all = Array.from({ length: 10 }, (_, n) => `a${n}b${n}c${n}`).join("");
  assertStringIncludes(typed.join("").replaceAll(/\s/g, ""), all);
});

atTerminal("an open line stays, and goes on when the guest goes on", "", async (it) => {
  await withGuest(it, "echo.rom");
  await it.enter(`dom.console.write("login: ")`);
  await it.shows(/^login:\nxvm demo>$/m);
  await it.type("1 + 1");
  await it.shows(/^login:\nxvm demo> 1 \+ 1$/m);
  await it.press("Enter");
  await it.shows(/^login:\nxvm demo> 1 \+ 1\n2\nxvm demo>$/m);
});

atTerminal(
  "attach gives the console, ctrl-] comes back, and the guest's line is there",
  "",
  async (it) => {
    await withGuest(it, "echo.rom");
    await it.enter(`dom.console.write("/ # ")`);
    await it.shows("/ #");
    await it.enter(".attach");
    await it.shows(/ctrl-\] comes back\n\/ #$/);
    await it.type("ls\x1b[31m");
    await it.shows(/^\/ # ls/m);
    await it.press("C-c");
    await it.press("C-]");
    await it.shows(/^\/ # ls.*\nxvm demo>$/m);
    await it.enter("dom.console.text.includes('\\x03')");
    await it.shows(/^true\nxvm demo>$/m);
  },
);

atTerminal("attach to a guest that ends, or has ended, says so", "", async (it) => {
  await withGuest(it, "reset.rom");
  await it.enter(".attach");
  await it.shows("ctrl-] comes back");
  await it.press("x");
  await it.shows(/has ended: reset.*\nxvm demo>$/m, 5000);
  await it.enter(".attach");
  await it.shows(/\.attach: domain 1 \(demo\) has ended: reset/, 5000);
});

atTerminal("attach ends at a breakpoint, and shows it", "", async (it) => {
  await it.shows(PROMPT);
  await it.enter("b cpuid leaf=0 if dom.console.text.includes('demo>')");
  await it.shows("breakpoint 1");
  await it.enter(".attach");
  await it.shows(/^demo>$/m);
  await it.press("c");
  await it.shows(/cpuid leaf 0x0.*\(breakpoint 1\)(?:.*\n)*=> 0x(?:.*\n)*xvm demo>$/m, 5000);
});

atTerminal("a guest's modes of the terminal end with the attachment", "", async (it) => {
  await withGuest(it, "echo.rom");
  await it.enter(".attach");
  await it.shows("ctrl-] comes back");
  await it.type("\x1b[?1049hfull screen\x1b[?25l");
  await it.shows(/^full screen$/m);
  await it.press("C-]");
  const { screen } = await it.shows(/attached to demo(?:.*\n)*xvm demo>$/);
  assert(!screen.includes("full screen"), screen);
});

atTerminal("a narrower window, a long input, a paste of 300 lines", "", async (it) => {
  await withGuest(it, "echo.rom");
  await it.enter(
    `dom.console.write("an open line of the guest that is longer than forty columns: ")`,
  );
  await it.shows(/forty columns:\nxvm demo>$/m);
  await it.type("'0123456789 0123456789 0123456789 0123456789'.length");
  await it.resize(40, 24);
  await new Promise((resolve) => setTimeout(resolve, 300));
  await it.press("Enter");
  await it.shows(/^43$/m);
  const { screen } = await it.shows(/^xvm demo>$/m);
  assertEquals(screen.match(/^an open line of/gm)?.length, 1, screen);
  assertEquals(screen.match(/0123456789'/g)?.length, 1, screen);
  const lines = Array.from({ length: 300 }, (_, i) => `globalThis.n${i} = ${i};`);
  await it.paste(`${lines.join("\n")}\n"pasted " + n299`);
  await it.press("Enter");
  await it.shows(/pasted 299/);
  const all = (await it.screen()).split("\n");
  for (const i of [0, 150, 298]) {
    assert(all.some((line) => line.endsWith(`n${i} = ${i};`)), `line ${i} is lost`);
  }
});

// --- ctrl-C ---

await Deno.writeTextFile(`${folder}/forever.ts`, "export const x = 1;\nfor (;;);\n");
await Deno.writeTextFile(`${folder}/load.ts`, "let loaded = 1;\nfor (;;) loaded++;\n");
await Deno.writeTextFile(
  `${folder}/run.ts`,
  `import { Hypervisor } from "xvm";\nconst hv = await Hypervisor.demo();\n` +
    `console.log("ready");\nfor (;;) hv.domains.length;\n`,
);

/** What is typed, on which guest; ctrl-C gives the prompt back and the session is as it was. */
const INTERRUPTED: Record<string, { guest?: string; setup?: string[]; input: string }> = {
  "a guest that c runs": { guest: "loop.rom", input: "c" },
  "a step of a hundred million instructions": { guest: "loop.rom", input: "s 100000000" },
  "an until that never comes": { guest: "loop.rom", input: "until cpuid" },
  "a guest that floods its console": { guest: "flood.rom", input: "c" },
  "a loop": { input: "for (;;);" },
  "a loop in a function": { input: "(function f() { while (true) { Math.sin(1) } })()" },
  "an await that never settles": { input: "await new Promise(() => {})" },
  "a loop over stops that never come": {
    guest: "loop.rom",
    input: "for await (const s of dom.stops('cpuid')) s.kind",
  },
  "a flood of output": { input: "for (let i = 0;; i++) console.log('line ' + i)" },
  "a loop in an action": {
    setup: ["dom.break('cpuid', {}, () => { for (;;); })"],
    input: "await dom.continue()",
  },
  "an action that never settles": {
    setup: ["dom.break('cpuid', {}, () => new Promise(() => {}))"],
    input: "await dom.continue()",
  },
  "eval": { input: `eval("while (true) {}")` },
  "Function": { input: `new Function("while (true) {}")()` },
  "a loop that .load reads": { input: `.load ${folder}/load.ts` },
};

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

for (const [what, { guest: name, setup = [], input }] of Object.entries(INTERRUPTED)) {
  atTerminal(`ctrl-C ends ${what}, and keeps the session`, "", async (it) => {
    await it.shows(PROMPT);
    await it.enter("kept = 42");
    await it.shows(/^42$/m);
    if (name) {
      await it.enter(guest(name));
      await it.shows(/^0$/m);
    }
    for (const line of setup) {
      await it.enter(line);
      await it.shows("breakpoint 1");
    }
    await it.enter(input);
    await sleep(700);
    await it.press("C-c");
    await it.shows(/\nxvm demo>$/, 3000);
    await it.press("C-l");
    await it.enter("'session ' + kept");
    await it.shows(/^"session 42"$/m, 3000);
  });
}

/** The engine cannot be stopped within these: the second ctrl-C ends them, or the shell. */
const STUBBORN: Record<string, string> = {
  "a loop in an eval of the global scope": `(0, eval)("while (true) {}")`,
  "a regular expression that backtracks": `/^(a+)+$/.test("a".repeat(45) + "b")`,
  "a loop in an imported module": `await import("${folder}/forever.ts")`,
};
for (const [what, input] of Object.entries(STUBBORN)) {
  atTerminal(`the second ctrl-C ends ${what}`, "", async (it) => {
    await it.shows(PROMPT);
    await it.enter("kept = 42");
    await it.shows(/^42$/m);
    await it.enter(input);
    await sleep(700);
    await it.press("C-c");
    await sleep(500);
    assert(!/xvm demo>$/.test(await it.screen()), "one was enough");
    await it.press("C-c");
    const { screen } = await it.shows(/(\nxvm demo>|\nended with 130)$/, 3000);
    if (/xvm demo>$/.test(screen)) {
      await it.enter("'session ' + kept");
      await it.shows(/^"session 42"$/m);
    } else {
      // The terminal is as it was: what is typed is seen, and a line is a line.
      await it.type("typed");
      await it.shows(/^typed$/m);
    }
  });
}

atTerminal("ctrl-C ends xvm run", `run ${folder}/run.ts`, async (it) => {
  await it.shows("ready");
  await it.press("C-c");
  await sleep(300);
  if (!/ended with/.test(await it.screen())) await it.press("C-c");
  await it.shows("ended with 130", 3000);
});

atTerminal(
  "xvm boot gives ctrl-C to the guest, and ctrl-] the shell, over a guest that floods",
  `boot --kernel ${folder}/flood.rom --memory 2M`,
  async (it) => {
    await it.shows("xxxxxxxx");
    await it.press("C-c");
    await sleep(200);
    await it.press("C-]");
    await it.shows(/xvm guest>$/, 3000);
    await it.press("C-c");
    await it.shows(/is paused; c continues/, 3000);
    await it.press("C-d");
    await it.shows("ended with", 3000);
  },
);
