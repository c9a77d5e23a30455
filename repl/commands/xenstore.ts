import { CommandError } from "../context.ts";
import type { Command } from "./command.ts";

/** What the command needs of `hv.xenstore`. */
interface StoreView {
  read(path: string): string;
  write(path: string, value: string): void;
  remove(path: string): void;
  list(path: string): readonly string[];
  permissions(path: string): readonly string[];
  tree(path?: string): string;
  watch(path: string, called: (event: { readonly path: string }) => void): unknown;
}

export const xenstore: Command = {
  name: "xs",
  usage: "xs [PATH]   xs ls|read|perms|rm|watch PATH   xs write PATH VALUE",
  summary: "What stands in xenstore, as a tree; reads, writes and watches it",
  help:
    `xs alone, or with a path, prints the tree from there on: names, values, and who may do what.

  xs /local/domain/1
  xs ls /local/domain
  xs read /local/domain/1/name
  xs write /local/domain/1/note hello
  xs watch /local/domain/1/data     prints the path of what changes there, from now on
  trace xenstore path=/local/domain/1/*

API: hv.xenstore`,
  run({ words, rest }, context) {
    const store = context.hypervisor()?.xenstore as StoreView | undefined;
    if (!store) throw new CommandError("xs: there is no host");
    const [verb = "/", path] = words;
    if (verb.startsWith("/")) return context.print(`${store.tree(verb)}\n`);
    if (path === undefined) {
      throw new CommandError(`xs ${verb}: a path is missing; xs ls|read|perms|rm|watch PATH`);
    }
    switch (verb) {
      case "ls":
        return context.print(lines(store.list(path)));
      case "read":
        return context.print(`${store.read(path)}\n`);
      case "perms":
        return context.print(`${store.permissions(path).join(" ")}\n`);
      case "rm":
        return store.remove(path);
      case "write":
        return store.write(path, rest.replace(/^\s*write\s+\S+\s?/, ""));
      case "watch":
        return void store.watch(path, (event) => context.print(`xenstore: ${event.path}\n`));
    }
    throw new CommandError(`xs: ${verb} is none of ls, read, perms, rm, write, watch, nor a path`);
  },
};
const lines = (names: readonly string[]): string => names.map((name) => `${name}\n`).join("");
