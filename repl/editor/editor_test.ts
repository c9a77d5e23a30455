import { assertEquals } from "@std/assert";
import { Editor, type EditorOptions, type Input } from "./editor.ts";
import { History } from "./history.ts";
import { KeyDecoder } from "./keys.ts";
import { textWidth } from "./layout.ts";
import { TestScreen } from "./testing.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const LEFT = "\x1b[D", UP = "\x1b[A", DOWN = "\x1b[B";

function start(options: Partial<EditorOptions> = {}, columns = 40) {
  const screen = new TestScreen(columns);
  const editor = new Editor({ screen, isWhole: (text) => !text.endsWith("{"), ...options });
  const type = async (text: string) => {
    editor.feed(bytes(text));
    await new Promise((resolve) => setTimeout(resolve, 0));
  };
  return { screen, editor, type };
}

async function entered(typed: string, options: Partial<EditorOptions> = {}): Promise<Input> {
  const { editor, type } = start(options);
  const input = editor.read();
  await type(typed);
  return await input;
}

const text = (text: string): Input => ({ kind: "text", text });

Deno.test("KeyDecoder waits for the rest of a cut sequence", () => {
  const keys = new KeyDecoder();
  assertEquals(keys.feed(bytes("a\x1b[1;")), [{ name: "text", text: "a" }]);
  assertEquals(keys.feed(bytes("5Dé")), [{ name: "ctrl-left" }, { name: "text", text: "é" }]);
  assertEquals(keys.feed(bytes("\x1b[200~a\rb\x1b[201~\x1bb\r")), [
    { name: "paste", text: "a\nb" },
    { name: "alt-b" },
    { name: "enter" },
  ]);
});

Deno.test("Editor edits a line", async () => {
  assertEquals(await entered(`helo${LEFT}l\r`), text("hello"));
  assertEquals(await entered("one two\x17three\r"), text("one three"));
  assertEquals(await entered("one two\x01\x0b\x19\x19\r"), text("one twoone two"));
  assertEquals(await entered("a.bcd\x1bb\x7f:\r"), text("a:bcd"));
  assertEquals(await entered("a😀\x7fb\r"), text("ab"));
  assertEquals(await entered("abc\x7f\x1f\r"), text("abc"));
});

Deno.test("Editor ends at ctrl-D and cancels at ctrl-C", async () => {
  assertEquals(await entered("\x04"), { kind: "end" });
  assertEquals(await entered("ab\x01\x04\r"), text("b"));
  assertEquals(await entered("ab\x03"), { kind: "cancelled" });
});

Deno.test("Editor goes on to another line until the input is whole", async () => {
  const { screen, editor, type } = start();
  const input = editor.read();
  await type("if (a) {\rb");
  assertEquals(screen.text, "> if (a) {\n    b");
  await type(`${UP}${UP}${DOWN}\x05}\r`);
  assertEquals(await input, text("if (a) {\n  b}"));
});

Deno.test("Editor takes a closing bracket back by a step", async () => {
  assertEquals(await entered("if (a) {\rb\x1b\r}\r"), text("if (a) {\n  b\n}"));
});

Deno.test("Editor recalls and searches history", async () => {
  const history = () => {
    const it = new History();
    for (const entry of ["alpha", "beta", "alphabet"]) it.add(entry);
    return it;
  };
  assertEquals(await entered(`${UP}${UP}\r`, { history: history() }), text("beta"));
  assertEquals(await entered(`new${UP}${DOWN}!\r`, { history: history() }), text("new!"));
  assertEquals(await entered("\x12alp\x12\r", { history: history() }), text("alpha"));
  assertEquals(await entered("draft\x12zzz\x07\r", { history: history() }), text("draft"));
});

Deno.test("History is kept in a file, without repetitions", () => {
  const file = `${Deno.makeTempDirSync()}/deep/history`;
  const first = new History(file);
  for (const entry of ["a", "a", " ", "b\nc"]) first.add(entry);
  assertEquals(new History(file).entries, ["a", "b\nc"]);
});

Deno.test("Tab completes what is common, and lists the rest", async () => {
  const complete = (text: string, cursor: number) => ({
    from: text.lastIndexOf(".", cursor) + 1,
    items: ["pause", "pageTables"].filter((it) =>
      it.startsWith(text.slice(text.lastIndexOf(".") + 1))
    ),
  });
  const { screen, editor, type } = start({ complete });
  const input = editor.read();
  await type("dom.p\t");
  assertEquals(screen.text, "> dom.pa");
  await type("\t");
  assertEquals(screen.text, "pause       pageTables\n> dom.pa");
  await type("u\t()\r");
  assertEquals(await input, text("dom.pause()"));
});

Deno.test("text that arrives is printed above the prompt, and an open line continues", async () => {
  const { screen, editor, type } = start();
  void editor.read();
  await type("hv.dom");
  editor.print("booting\nlog");
  assertEquals(screen.text, "booting\nlog\n> hv.dom");
  editor.print("in: ");
  assertEquals(screen.text, "booting\nlogin: \n> hv.dom".replace(": \n", ":\n"));
  await type("ains");
  editor.print("\nnext\n");
  assertEquals(screen.text, "booting\nlogin:\nnext\n> hv.domains");
  assertEquals(screen.cursor, [3, 12]);
});

Deno.test("the prompt wraps at the screen's edge", async () => {
  const { screen, editor, type } = start({}, 20);
  void editor.read();
  await type("0123456789abcdefgh");
  assertEquals(screen.text, "> 0123456789abcdefgh\n");
  assertEquals(screen.cursor, [1, 0]);
  await type("ij");
  assertEquals(screen.text, "> 0123456789abcdefgh\nij");
  await type("\x01");
  assertEquals(screen.cursor, [0, 2]);
  editor.print("above\n");
  assertEquals(screen.text, "above\n> 0123456789abcdefgh\nij");
});

Deno.test("textWidth() counts columns", () => {
  assertEquals(textWidth("\x1b[31mab\x1b[0m界"), 4);
});
