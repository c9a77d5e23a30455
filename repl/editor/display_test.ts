import { assert, assertEquals } from "@std/assert";
import { ConsoleText } from "./console_text.ts";
import { Editor } from "./editor.ts";
import { TestScreen } from "./testing.ts";

const screen = { columns: () => 40, rows: () => 24 };

/** What a text leaves behind, however it is cut. */
function shown(text: string): string {
  const whole = new ConsoleText(screen).feed(text);
  const expected = [...whole.lines, whole.open].join("\n");
  const pieces = new ConsoleText(screen), lines: string[] = [];
  for (const char of text) lines.push(...pieces.feed(char).lines);
  assertEquals([...lines, pieces.open].join("\n"), expected);
  return expected;
}

Deno.test("ConsoleText shows what a terminal would, a line at a time", () => {
  assertEquals(shown("one\r\ntwo\r\r\nthree"), "one\ntwo\nthree");
  assertEquals(shown("10 %\r20 %\r100 %"), "100 %");
  assertEquals(shown("long text\rshort\x1b[K\n"), "short\n");
  assertEquals(shown("abc\b\bX"), "aXc");
  assertEquals(shown("a\tb\tc"), "a       b       c");
  assertEquals(shown("abcdef\x1b[4D\x1b[2P|"), "ab|f");
  assertEquals(shown("abc\x1b[3D\x1b[@x"), "xabc");
  assertEquals(shown("ab\x1b[3Ccd\x1b[1Gz"), "zb   cd");
  assertEquals(shown("abc\x1b[2X\x1b[1K\x1b[2Kx"), "   x");
});

Deno.test("ConsoleText begins a line where the cursor goes to another row", () => {
  assertEquals(shown("a\x1b[2;3Hb\x1b[2J\x1b[Hc\x1b[3Ad\x1b[Ee"), "a\n  b\nc\n d\ne");
  assertEquals(shown("a\x1bDb\x1bMc\x1bcd"), "a\nb\nc\nd");
});

Deno.test("ConsoleText keeps colours, and nothing else that a terminal would obey", () => {
  assertEquals(shown("\x1b[31ma\x1b[1mb\x1b[mc"), "\x1b[31ma\x1b[0m\x1b[31m\x1b[1mb\x1b[0mc");
  const hostile = [
    "\x1b[6n\x1b[c\x1b[>c\x1b[?25l\x1b[?1049h\x1b[?1000h\x1b[5i\x1b[21t\x1b[=1h",
    "\x1b]0;title\x07\x1b]52;c;aGk=\x1b\\\x1bP$q q\x1b\\\x1b_apc\x1b\\\x1b^pm\x9c\x1bXsos\x1b\\",
    "\x9b6n\x9d0;title\x9c\x90q\x9c\x05\x07\x0e\x0f\x7f\x1b(0\x1b)B\x1b#8\x1b=\x1b>\x1b7\x1b8\x1bZ",
    "\x1b[31;?1m\x1b[1\x1b[2\x1b[0m",
  ];
  for (const text of hostile) assertEquals(shown(`<${text}>`), "<>", JSON.stringify(text));
});

Deno.test("ConsoleText is bounded, whatever comes", () => {
  const text = new ConsoleText(screen);
  const { lines, open } = text.feed("x".repeat(10_000) + `\x1b[${"1;".repeat(5000)}`);
  assertEquals(lines.join("") + open, "x".repeat(10_000) + "1;".repeat(5000).slice(129));
  assert(lines.every((line) => line.length <= 480));
  assertEquals(shown("\x1b[99999999Cx").length, 40);
  assertEquals(shown(`a${"\u0301".repeat(1000)}`).length, 16);
  assertEquals(shown("\x1b[999999999@x"), "x");
});

Deno.test("ConsoleText knows how to undo what it would have changed of a terminal", () => {
  const text = new ConsoleText(screen);
  text.feed("\x1b[?1049h\x1b[?25l\x1b[?7h\x1b[?1000;1006h\x1b[?1006l\x1b[2;5r\x1b=\x1b(0");
  assertEquals(
    text.undo(),
    "\x1b[0m\x1b[?1049l\x1b[?25h\x1b[?1000l\x1b7\x1b[r\x1b8\x1b>\x1b(B\x0f",
  );
  assertEquals(text.undo(), "\x1b[0m");
});

/** A guest's output at every chunk boundary, a prompt under it. */
Deno.test("no text is lost above the prompt, wherever it is cut", async () => {
  const text = "one\r\ntwo\r\r\nthr\x1b[31mee\x1b[0m\r\nvier\tfünf\r\n界界\r\n" +
    "x".repeat(90) + "\r\n" + "/ # \x1b[6n\x1b[Jecho a; echo b\r\na\r\nb\r\n50 %\r100 %\r\n/ # ";
  const expected = `one\ntwo\nthree\nvier    fünf\n界界\n${"x".repeat(40)}\n${"x".repeat(40)}\n` +
    `${"x".repeat(10)}\n/ # echo a; echo b\na\nb\n100 %\n/ #\n> typed`;
  for (let cut = 0; cut <= text.length; cut++) {
    const screen = new TestScreen(40);
    const editor = new Editor({ screen });
    void editor.read();
    editor.feed(new TextEncoder().encode("typed"));
    await Promise.resolve();
    editor.print(text.slice(0, cut), "guest");
    editor.print(text.slice(cut), "guest");
    assertEquals(screen.text.replace(/(?<=界.*)\n/, "\n"), expected, `cut at ${cut}`);
    assert(!screen.written.includes("\x1b[6n"));
  }
});

Deno.test("text is the same without a prompt, and a prompt that comes later stands below it", () => {
  const screen = new TestScreen(20);
  const editor = new Editor({ screen });
  for (const char of "12\r345\r\nlogin: ") editor.print(char, "guest");
  assertEquals(screen.text, "345\nlogin:");
  void editor.read();
  assertEquals(screen.text, "345\nlogin:\n>");
  editor.print("x\n", "guest");
  assertEquals(screen.text, "345\nlogin: x\n>");
});

Deno.test("another source begins its own line", () => {
  const screen = new TestScreen(40);
  const editor = new Editor({ screen });
  void editor.read();
  editor.print("guest 1: ", 1);
  editor.print("guest 2: ", 2);
  editor.print("more\n", 1);
  editor.print("ours\n");
  assertEquals(screen.text, "guest 1:\nguest 2:\nmore\nours\n>");
});

Deno.test("a narrower window leaves neither rests nor holes", async () => {
  const screen = new TestScreen(80);
  const editor = new Editor({ screen });
  void editor.read();
  editor.print("a line\n" + "open ".repeat(12), "guest");
  editor.feed(new TextEncoder().encode("x".repeat(60)));
  await Promise.resolve();
  screen.resize(40);
  editor.refresh();
  editor.print("end\n", "guest");
  assertEquals(
    screen.text,
    `a line\n${
      ("open ".repeat(12) + "end").match(/.{1,40}/g)!.map((s) => s.trimEnd()).join("\n")
    }\n` +
      `> ${"x".repeat(38)}\n${"x".repeat(22)}`,
  );
});

Deno.test("an input of more lines than the screen has rows is drawn in part, and left whole", async () => {
  const screen = new TestScreen(40, 10);
  const editor = new Editor({ screen });
  const input = editor.read();
  const lines = Array.from({ length: 300 }, (_, i) => `line${i};`);
  editor.feed(new TextEncoder().encode(`\x1b[200~${lines.join("\n")}\x1b[201~`));
  await Promise.resolve();
  assertEquals(screen.text.split("\n").length, 9);
  editor.print("above\n", "guest");
  assertEquals(screen.text.split("\n").slice(0, 2), ["above", "  line291;"]);
  editor.feed(new TextEncoder().encode("\r"));
  assertEquals(await input, { kind: "text", text: lines.join("\n") });
  const left = screen.text.split("\n");
  assertEquals(left.slice(0, 3), ["above", "> line0;", "  line1;"]);
  assertEquals(left.length, 302);
});
