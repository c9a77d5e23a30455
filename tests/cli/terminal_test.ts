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
  for (let n = 0; n < 10; n++) {
    for (const letter of "abc") assertStringIncludes(`\n${screen}\n`, `\n${letter}${n}\n`);
  }
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
