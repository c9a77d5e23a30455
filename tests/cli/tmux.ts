/**
 * The program in a terminal: tmux gives it one, types, and tells what stands on the screen.
 *
 * @module
 */

const decoder = new TextDecoder();

/** Whether tmux is there. */
export const hasTmux: boolean = await new Deno.Command("tmux", { args: ["-V"] }).output()
  .then(({ success }) => success, () => false);

let servers = 0;

/** One window of one server of its own. */
export class Tmux implements AsyncDisposable {
  readonly #socket = `xvm-test-${Deno.pid}-${servers++}`;

  /** Starts `command`, a shell's line, in a window of `columns` and `rows`. */
  static async start(
    command: string,
    { columns = 80, rows = 24, env = {} }: {
      columns?: number;
      rows?: number;
      env?: Record<string, string>;
    } = {},
  ): Promise<Tmux> {
    const tmux = new Tmux();
    const variables = Object.entries({ TERM: "xterm-256color", ...env })
      .map(([name, value]) => `${name}='${value}'`).join(" ");
    await tmux.#run(
      "-f",
      "/dev/null",
      "new-session",
      "-d",
      "-x",
      `${columns}`,
      "-y",
      `${rows}`,
      [
        `env ${variables} ${command}; echo "ended with $?"; sleep 1000`,
      ].join(),
    );
    await tmux.#run("set-option", "-g", "history-limit", "50000");
    return tmux;
  }

  async #run(...args: string[]): Promise<string> {
    const { success, stdout, stderr } = await new Deno.Command("tmux", {
      args: ["-L", this.#socket, ...args],
    }).output();
    if (!success) throw new Error(`tmux ${args.join(" ")}: ${decoder.decode(stderr)}`);
    return decoder.decode(stdout);
  }

  /** Types text. */
  async type(text: string): Promise<void> {
    for (let at = 0; at < text.length; at += 500) {
      await this.#run("send-keys", "-l", "--", text.slice(at, at + 500));
    }
  }
  /** Presses keys by tmux's names: "Enter", "C-c". */
  async press(...keys: string[]): Promise<void> {
    await this.#run("send-keys", ...keys);
  }
  /** Types a line and Enter. */
  async enter(text: string): Promise<void> {
    await this.type(text);
    await this.press("Enter");
  }
  /** Pastes text, marked as such where the program asks for that. */
  async paste(text: string): Promise<void> {
    const file = await Deno.makeTempFile();
    await Deno.writeTextFile(file, text);
    await this.#run("load-buffer", file);
    await this.#run("paste-buffer", "-p");
    await Deno.remove(file);
  }
  async resize(columns: number, rows: number): Promise<void> {
    await this.#run("resize-window", "-x", `${columns}`, "-y", `${rows}`);
  }

  /** What stands on the screen, and above it. */
  async screen(): Promise<string> {
    return (await this.#run("capture-pane", "-p", "-S", "-")).trimEnd();
  }

  /** The screen, once it shows `wanted`; how long that took is in milliseconds. */
  async shows(
    wanted: string | RegExp,
    timeout = 20_000,
  ): Promise<{ screen: string; took: number }> {
    const start = performance.now();
    for (;;) {
      const screen = await this.screen();
      const took = performance.now() - start;
      if (typeof wanted === "string" ? screen.includes(wanted) : wanted.test(screen)) {
        return { screen, took };
      }
      if (took > timeout) throw new Error(`the screen does not show ${wanted}:\n${screen}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#run("kill-server").catch(() => {});
  }
}
