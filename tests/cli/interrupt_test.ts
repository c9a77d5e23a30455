/**
 * Ctrl-C in the real program: what a user can write at the prompt that goes on for ever ends by the
 * first, or, where the engine allows nothing else, by the second, with the terminal as it was.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { hasTmux, Tmux } from "./tmux.ts";

const root = new URL("../../", import.meta.url).pathname;
const folder = await Deno.makeTempDir({ prefix: "xvm-interrupt-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
await Deno.writeTextFile(`${folder}/spin.ts`, "export function spin() { for (;;); }\n");
await Deno.writeTextFile(`${folder}/loop.ts`, "console.log('READY');\nfor (;;);\n");
await Deno.writeTextFile(
  `${folder}/deaf.ts`,
  "Deno.addSignalListener('SIGINT', () => {});\nconsole.log('READY');\nfor (;;);\n",
);

const ARGS = [
  "run",
  "-q",
  "-A",
  "--no-check",
  "--config",
  `${root}deno.json`,
  `${root}repl/main.ts`,
];

/** Runs the program until it prints READY; sends SIGINT then, and again until it ends. */
async function interrupted(
  args: string[],
  atMost: number,
): Promise<{ code: number; text: string }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...ARGS, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1", XVM_CACHE: folder },
  }).spawn();
  let text = "", ended = false;
  const read = async (stream: ReadableStream<Uint8Array>) => {
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) text += chunk;
  };
  const done = Promise.all([child.status, read(child.stdout), read(child.stderr)]);
  void done.then(() => ended = true);
  const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  const limit = performance.now() + 60_000;
  while (!text.includes("READY") && !ended && performance.now() < limit) await sleep(20);
  // What stands behind READY has begun by then.
  await sleep(500);
  for (let n = 0; n < atMost && !ended; n++) {
    child.kill("SIGINT");
    for (let i = 0; i < 500 && !ended; i++) {
      await sleep(20);
      if (n + 1 < atMost && text.includes("another leaves")) break;
    }
  }
  if (!ended) child.kill("SIGKILL");
  const [{ code }] = await done;
  return { code, text };
}

/** All of these poll for ctrl-C, or wait. */
const ENDS = {
  "a loop": "for (;;);",
  "a loop that catches": "for (;;) try { for (;;); } catch {}",
  "eval": `eval("while (true) {}")`,
  "Function": `new Function("while (true) {}")()`,
  "an await that never settles": "await new Promise(() => {})",
  "a loop of microtasks": "(async () => { for (;;) await null })()",
  "for await over stops": `for await (const stop of dom.stops("io")) stop;`,
  "an action": `dom.break("io", {}, () => { for (;;); }); await dom.continue()`,
  "an action that waits for ever":
    `dom.break("io", {}, async () => { await new Promise(() => {}) }); await dom.continue()`,
  "a trace handler": `dom.trace("io", {}, () => { for (;;); }); await dom.until("hlt")`,
  "a predicate": `await dom.until("io", {}, () => { for (;;); })`,
  "a device": `dom.ioreq.serve({ port: [0x20, 0x21] }, { write() { for (;;); } }); ` +
    `await dom.until("hlt")`,
  "a listener of the console": `dom.console.onOutput(() => { for (;;); }); await dom.continue()`,
  "what an object shows of itself": `({ [Symbol.for("Deno.customInspect")]() { for (;;); } })`,
  "c": "c",
  "a long step": "s 1000000000",
  ".load": `.load ${folder}/loop.ts`,
};

for (const [what, code] of Object.entries(ENDS)) {
  Deno.test(`ctrl-C ends ${what}`, async () => {
    const { code: status, text } = await interrupted(
      ["repl", "-c", `await dom.until("hlt"); console.log("READY")\n${code}`],
      1,
    );
    assertMatch(text, what === "c" ? /demo is paused/ : /Interrupted/);
    assertEquals(status, 1, text);
  });
}

/** What the engine lets nobody end. */
const LEAVES = {
  "a regular expression that backtracks": `/(a+)+b/.test("a".repeat(60))`,
  "an imported module's loop": `import { spin } from "${folder}/spin.ts"; spin()`,
  "what the engine does for long": `Array(2 ** 31).fill(0).toSorted()`,
};

for (const [what, code] of Object.entries(LEAVES)) {
  Deno.test(`the second ctrl-C leaves ${what}`, async () => {
    const { code: status, text } = await interrupted(
      ["repl", "-c", `console.log("READY")\n${code}`],
      2,
    );
    assertStringIncludes(text, "this code does not stop for ctrl-C; another leaves xvm");
    assertStringIncludes(text, "left: ");
    assertEquals(status, 130, text);
  });
}

Deno.test({
  name: "ctrl-C ends xvm run; where the script does not stop for it, the second does",
  ignore: !hasTmux,
  fn: async () => {
    for (const [file, presses, ended] of [["loop.ts", 1, 130], ["deaf.ts", 2, 137]] as const) {
      await using it = await Tmux.start(
        [Deno.execPath(), ...ARGS, "run", `${folder}/${file}`].join(" "),
      );
      await it.shows("READY", 60_000);
      for (let n = 0; n < presses; n++) {
        await new Promise((resolve) => setTimeout(resolve, 300));
        await it.press("C-c");
      }
      await it.shows(`ended with ${ended}`);
    }
  },
});

Deno.test({
  name: "who is left by the second ctrl-C finds the terminal and the history as they should be",
  ignore: !hasTmux,
  fn: async () => {
    const cache = await Deno.makeTempDir({ dir: folder });
    const program = [Deno.execPath(), ...ARGS].join(" ");
    const command = `bash -c 'stty -a > ${cache}/before; ${program}; code=$?; ` +
      `stty -a > ${cache}/after; exit $code'`;
    await using it = await Tmux.start(command, { env: { NO_COLOR: "1", XVM_CACHE: cache } });
    await it.shows("xvm demo>", 60_000);
    await it.enter("await dom.until('hlt'); 'there'");
    await it.shows(`"there"`, 60_000);
    await it.enter(`eval("while (true) {}")`);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await it.press("C-c");
    await it.shows(/Interrupted\nxvm demo>/);
    await it.enter(`/(a+)+b/.test("a".repeat(60))`);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await it.press("C-c");
    await it.shows("another leaves xvm");
    await it.press("C-c");
    await it.shows("ended with 130");
    const read = (name: string) => Deno.readTextFile(`${cache}/${name}`);
    assertEquals(await read("after"), await read("before"));
    assertStringIncludes(await read("history"), "(a+)+b");
  },
});

Deno.test({
  name: "one press of ctrl-C is one under deno task too, which hands the terminal's signal on",
  ignore: !hasTmux,
  fn: async () => {
    const cache = await Deno.makeTempDir({ dir: folder });
    const command = `sh -c 'cd ${root}; exec ${Deno.execPath()} task -q xvm'`;
    await using it = await Tmux.start(command, { env: { NO_COLOR: "1", XVM_CACHE: cache } });
    const rest = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    await it.shows("xvm demo>", 60_000);
    const presses = 12;
    for (let press = 1; press <= presses; press++) {
      await it.enter("c");
      // The first of them is compiled before anything runs.
      await rest(press === 1 ? 2000 : 300);
      await it.press("C-c");
      await it.shows(new RegExp(`(demo is paused[^]*){${press}}\\nxvm demo>$`));
      await rest(100);
    }
    // Each pause has one prompt: no second press came to it.
    const { length } = (await it.screen()).match(/^xvm demo>( c)?$/gm)!;
    assertEquals(length, presses + 1);
    await it.enter(`/(a+)+b/.test("a".repeat(60))`);
    await rest(500);
    await it.press("C-c");
    await it.shows("another leaves xvm");
    await rest(1500);
    assertEquals((await it.screen()).includes("ended with"), false);
    await it.press("C-c");
    await it.shows("ended with 130");
  },
});
