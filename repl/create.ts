/**
 * `xvm create FILE…`: the domains that files describe, on one simulated host.
 *
 * @module
 */
import type { BootDomain, BootHost, DomainOptions } from "./api.ts";
import { counted } from "../src/builder/errors.ts";
import { openHost } from "./api.ts";
import { beyondLoads, hostMemory, shows, statistics, typeFrom } from "./boot.ts";
import { Terminal } from "./editor/terminal.ts";
import { Shell } from "./interactive.ts";
import { writeOut } from "./output.ts";
import { prelude } from "./prelude.ts";
import { type Action, type DomainFile, type Event, memoryOf } from "./xl.ts";

/** When it is done. */
export interface CreateOptions {
  /** Exit 0 when every domain's console has shown this. */
  until?: string;
  /** Seconds of the host's clock. */
  timeout?: number;
  /** Whether a line of JSON for each domain goes to standard error. */
  stats?: boolean;
}

/** How a domain's end is called in xl.cfg. */
const EVENTS: Readonly<Record<string, Event>> = {
  poweroff: "poweroff",
  exit: "poweroff",
  reset: "reboot",
  crash: "crash",
  hang: "crash",
  watchdog: "watchdog",
};

/** A file's domain: the one there is now, after its restarts. */
class Life {
  domain!: BootDomain;
  /** What became of it in the end. */
  end?: { ok: boolean; text: string };

  constructor(readonly file: DomainFile, readonly host: BootHost) {}

  async make(): Promise<void> {
    this.domain = await this.host.createDomain(this.file.options as unknown as DomainOptions);
  }

  /** Lets it run, again and again if its file says so; resolves when it is over. */
  async run(each: (domain: BootDomain) => void, say: (text: string) => void): Promise<void> {
    for (;;) {
      const { domain } = this;
      each(domain);
      void domain.unpause();
      const { reason, detail, ok } = await beyondLoads(() => domain.ended);
      const text = `${domain.name}: ${reason} (${detail})`;
      const event = EVENTS[reason];
      const action: Action = event ? this.file.actions[event] : "preserve";
      if (action === "restart") {
        say(`${text}; it starts again`);
        domain.destroy();
        await this.make();
        continue;
      }
      this.end = { ok, text };
      if (action === "destroy") domain.destroy();
      return;
    }
  }
}

/** Creates the domains; resolves to the exit status: 0 as wished, 1 when one ended badly first. */
export async function create(files: DomainFile[], options: CreateOptions): Promise<number> {
  const started = performance.now();
  for (const { warnings } of files) {
    for (const text of warnings) console.error(`xvm create: ${text}`);
  }
  const memory = hostMemory(files.map(memoryOf));
  const host = await openHost({
    cpu: "intel",
    ...Object.assign({}, ...files.map((f) => f.host)),
    memory,
  });
  try {
    const lives: Life[] = [];
    for (const file of files) {
      const life = new Life(file, host);
      await life.make();
      lives.push(life);
    }
    const code = Terminal.available
      ? await atTerminal(host, lives, options)
      : await plainly(lives, options);
    if (options.stats) {
      for (const { domain } of lives) {
        const { name } = domain;
        console.error(JSON.stringify({ name, ...statistics(host, domain, started) }));
      }
    }
    return code;
  } finally {
    await host.close();
  }
}

/** Starts the domains; resolves to the exit status: texts shown, domains ended, or time up. */
function runAll(
  lives: Life[],
  options: CreateOptions,
  each: (domain: BootDomain) => void,
  say: (text: string) => void,
): Promise<number> {
  const { until, timeout } = options;
  const ways: Promise<number>[] = [];
  // Watched before the first instruction runs.
  if (until !== undefined) {
    ways.push(Promise.all(lives.map(({ domain }) => shows(domain, until))).then(() => 0));
  }
  ways.push(
    Promise.all(lives.map((life) => life.run(each, say))).then(() =>
      until === undefined && lives.every((l) => l.end?.ok) ? 0 : 1
    ),
  );
  let timer: ReturnType<typeof setTimeout> | undefined;
  if (timeout !== undefined) {
    ways.push(
      new Promise((resolve) => {
        timer = setTimeout(() => {
          console.error(`xvm create: ${counted(timeout, "second")} passed`);
          resolve(1);
        }, timeout * 1000);
      }),
    );
  }
  return Promise.race(ways).finally(() => clearTimeout(timer));
}

/** Characters of a line after which it is written, whether the guest has ended it or not. */
const MAX_LINE = 65536;

/** No terminal: consoles go to standard output, with their domains' names if there are several. */
async function plainly(lives: Life[], options: CreateOptions): Promise<number> {
  const several = lives.length > 1;
  const say = (text: string) => console.error(`xvm create: ${text}`);
  /** What a domain has written of a line that it has not ended, by its name. */
  const open = new Map<string, string>();
  const endLine = (name: string) => {
    const line = open.get(name);
    if (line) writeOut(several ? `${name}: ${line}\n` : "\n");
    open.delete(name);
  };
  const each = ({ name, console }: BootDomain) => {
    endLine(name);
    console.onOutput((text) => {
      if (!several) {
        open.set(name, text.slice(text.lastIndexOf("\n") + 1));
        return writeOut(text);
      }
      const lines = ((open.get(name) ?? "") + text).split("\n");
      const rest = lines.at(-1)!;
      if (rest.length < MAX_LINE) lines.pop();
      open.set(name, rest.length < MAX_LINE ? rest : "");
      for (const whole of lines) writeOut(`${name}: ${whole}\n`);
    }, { passive: true });
  };
  const ended = runAll(lives, options, each, say);
  if (!several) void typeFrom(() => lives[0].domain);
  const code = await ended;
  for (const { domain, end } of lives) if (!end) await domain.pause();
  // They stand where they said what was waited for, most likely within a line.
  for (const name of [...open.keys()]) endLine(name);
  for (const { end } of lives) if (end) say(`the guest ended: ${end.text}`);
  return code;
}

/** The first domain's console on the terminal, and the shell behind ctrl-]. */
async function atTerminal(
  host: BootHost,
  lives: Life[],
  options: CreateOptions,
): Promise<number> {
  const shell = new Shell();
  const say = (text: string) => shell.print(`${text}\n`);
  let code: number | undefined;
  const left = await shell.run(async (session) => {
    session.use(host);
    prelude(session);
    void runAll(lives, options, () => {}, say).then((it) => {
      code = it;
      shell.finish(it);
    });
    await shell.attach(lives[0].domain);
  });
  for (const { domain, end } of lives) if (!end) void domain.pause();
  return code ?? left;
}
