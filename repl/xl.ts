/**
 * Domain configurations: the syntax of xl.cfg, and typed .ts files.
 *
 * @module
 */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseSize } from "./size.ts";

/** What `createDomain` takes, as far as a file can say it. */
export interface DomainFile {
  name?: string;
  type?: "bare" | "hvm" | "pvh" | "pv";
  kernel?: string;
  ramdisk?: string;
  cmdline?: string;
  /** Bytes. */
  memory?: number;
  vcpus?: number;
  paging?: "hap" | "shadow";
  /** A model, then changes: "host,rdrand=0". */
  cpuid?: string;
  /** Bytes for shadow tables. */
  shadowMemory?: number;
  /** The simulated host's processor; xl.cfg has no such key, so it is ours. */
  cpu?: "intel" | "amd";
}

type Value = string | number | Value[];

/** Reads a configuration: a .ts module's default export (or what it returns), else xl.cfg syntax. */
export async function readDomainFile(path: string): Promise<DomainFile> {
  if (/\.[mc]?[jt]s$/.test(path)) {
    const { default: exported } = await import(pathToFileURL(resolve(path)).href);
    const config = typeof exported === "function" ? await exported() : exported;
    if (typeof config === "object" && config !== null) return fromModule(config, path);
    throw new TypeError(
      `${path}: the default export has to be a configuration, got ${typeof exported}`,
    );
  }
  return fromXl(parseXl(await Deno.readTextFile(path), path), path);
}

function fromModule(config: DomainFile & { memory?: unknown }, _path: string): DomainFile {
  const { memory } = config;
  return { ...config, memory: typeof memory === "string" ? parseSize(memory) : memory as number };
}

/** The assignments of a text in xl.cfg syntax: strings, numbers and lists, `#` comments. */
export function parseXl(text: string, path = "configuration"): Record<string, Value> {
  const result: Record<string, Value> = {};
  const token =
    /\s+|#[^\n]*|([A-Za-z_]\w*)|("[^"\n]*"|'[^'\n]*')|(0x[0-9a-f]+|-?\d+)|(\+=|[=[\],;])/giy;
  const tokens: { text: string; line: number }[] = [];
  while (token.lastIndex < text.length) {
    const at = token.lastIndex;
    const line = text.slice(0, at).split("\n").length;
    const match = token.exec(text);
    if (!match) throw new SyntaxError(`${path}:${line}: cannot read ${JSON.stringify(text[at])}`);
    if (match.slice(1).some((it) => it !== undefined)) tokens.push({ text: match[0], line });
  }
  let i = 0;
  const fail = (wanted: string): never => {
    const got = tokens[i] ?? { text: "the end", line: text.split("\n").length };
    throw new SyntaxError(`${path}:${got.line}: expected ${wanted}, got ${got.text}`);
  };
  const value = (): Value => {
    const it = tokens[i]?.text ?? fail("a value");
    if (/^["']/.test(it)) return tokens[i++].text.slice(1, -1);
    if (/^-?\d/.test(it)) return Number(tokens[i++].text);
    if (it !== "[") return fail("a string, a number or a list");
    i++;
    const list: Value[] = [];
    while (tokens[i]?.text !== "]") {
      list.push(value());
      if (tokens[i]?.text === ",") i++;
      else if (tokens[i]?.text !== "]") fail(", or ]");
    }
    i++;
    return list;
  };
  while (i < tokens.length) {
    const name = tokens[i].text;
    if (name === ";") {
      i++;
      continue;
    }
    if (!/^[A-Za-z_]/.test(name)) fail("a name");
    i++;
    if (tokens[i]?.text !== "=") fail(`= after ${name}`);
    i++;
    result[name] = value();
  }
  return result;
}

/** Keys of xl.cfg that we know, and what they become; MiB are xl's unit of memory. */
function fromXl(config: Record<string, Value>, path: string): DomainFile {
  const text = (key: string) => config[key] === undefined ? undefined : String(config[key]);
  const type = text("type") ?? text("builder") ?? (config.firmware === "pvh" ? "pvh" : undefined);
  const types: Record<string, DomainFile["type"]> = {
    hvm: "hvm",
    pvh: "pvh",
    pv: "pv",
    generic: "pv",
    bare: "bare",
  };
  if (type !== undefined && !types[type]) {
    throw new RangeError(
      `${path}: type is ${JSON.stringify(type)}; expected one of ${Object.keys(types).join(", ")}`,
    );
  }
  const cmdline = [text("cmdline") ?? (text("root") && `root=${text("root")}`), text("extra")]
    .filter((it) => it).join(" ");
  return {
    name: text("name"),
    type: type === undefined ? undefined : types[type],
    kernel: text("kernel"),
    ramdisk: text("ramdisk"),
    cmdline: cmdline || undefined,
    memory: config.memory === undefined ? undefined : Number(config.memory) * 2 ** 20,
    vcpus: config.vcpus === undefined ? undefined : Number(config.vcpus),
    paging: config.hap === undefined ? undefined : Number(config.hap) ? "hap" : "shadow",
    cpuid: text("cpuid"),
    shadowMemory: config.shadow_memory === undefined
      ? undefined
      : Number(config.shadow_memory) * 2 ** 20,
    cpu: text("cpu") as DomainFile["cpu"],
  };
}
