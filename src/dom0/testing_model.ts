/**
 * XenStore as simply as it can be said: a tree, one request after the other, no transactions. Tests hold
 * the real one against it.
 *
 * @module
 */

interface ModelNode {
  value: string;
  /** "n1", "r2": the first is the owner's. */
  permissions: string[];
  readonly children: Map<string, ModelNode>;
}

/** What a request asks for. */
export type ModelRequest =
  | { readonly kind: "read" | "list" | "mkdir" | "rm" | "permissions"; readonly path: string }
  | { readonly kind: "write"; readonly path: string; readonly value: string }
  | { readonly kind: "setPermissions"; readonly path: string; readonly permissions: string[] };

const partsOf = (path: string) => path === "/" ? [] : path.slice(1).split("/");

export class ModelStore {
  readonly root: ModelNode;
  /** Paths that the last request has changed, the removed ones too. */
  changed: string[] = [];
  /** And those whose children have changed. */
  touched: Set<string> = new Set();

  constructor() {
    const node = (children: [string, ModelNode][]): ModelNode => ({
      value: "",
      permissions: ["n0"],
      children: new Map(children),
    });
    this.root = node([["tool", node([["xenstored", node([])]])]]);
  }

  #at(parts: readonly string[]): ModelNode | undefined {
    let node: ModelNode | undefined = this.root;
    for (const part of parts) node = node?.children.get(part);
    return node;
  }
  #may(domain: number, { permissions }: ModelNode, what: "r" | "w"): boolean {
    const [owner, ...others] = permissions;
    if (domain === 0 || Number(owner.slice(1)) === domain) return true;
    const letter = (others.find((each) => Number(each.slice(1)) === domain) ?? owner)[0];
    return letter === "b" || letter === what;
  }

  /** Does it. @returns the answer's text, or the errno's name */
  run(domain: number, request: ModelRequest): string {
    this.changed = [];
    this.touched = new Set();
    const answer = this.#run(domain, request);
    for (const path of this.changed) this.touched.add(path);
    return answer;
  }
  #run(domain: number, request: ModelRequest): string {
    const { kind, path } = request, parts = partsOf(path), node = this.#at(parts);
    const right = kind === "read" || kind === "list" || kind === "permissions" ? "r" : "w";
    if (!node) {
      let above = parts.slice(0, -1);
      while (!this.#at(above)) above = above.slice(0, -1);
      if (!this.#may(domain, this.#at(above)!, right)) return "EACCES";
      if (kind === "rm") return this.#at(parts.slice(0, -1)) ? "OK" : "ENOENT";
      if (kind !== "write" && kind !== "mkdir") return "ENOENT";
      this.#make(domain, parts, kind === "write" ? request.value : "");
      this.changed = [path];
      return "OK";
    }
    const owns = domain === 0 || Number(node.permissions[0].slice(1)) === domain;
    if (kind === "setPermissions" ? !owns : !this.#may(domain, node, right)) {
      // Who has nothing to do with it, here and above, learns nothing else.
      return "EACCES";
    }
    switch (request.kind) {
      case "read":
        return node.value;
      case "list":
        return [...node.children.keys()].join("|");
      case "permissions":
        return node.permissions.join("|");
      case "mkdir":
        return "OK";
      case "write":
        node.value = request.value;
        this.changed = [path];
        return "OK";
      case "rm": {
        if (parts.length === 0) return "EINVAL";
        this.#note(path, node);
        this.touched.add(`/${parts.slice(0, -1).join("/")}`);
        this.#at(parts.slice(0, -1))!.children.delete(parts.at(-1)!);
        return "OK";
      }
      case "setPermissions":
        if (domain !== 0 && request.permissions[0].slice(1) !== node.permissions[0].slice(1)) {
          return "EPERM";
        }
        node.permissions = request.permissions;
        this.changed = [path];
        return "OK";
    }
  }
  #note(path: string, node: ModelNode): void {
    for (const [name, child] of node.children) this.#note(`${path}/${name}`, child);
    this.changed.push(path);
  }
  #make(domain: number, parts: readonly string[], value: string): void {
    let node = this.root;
    for (const [n, part] of parts.entries()) {
      let child = node.children.get(part);
      if (!child) {
        const [owner, ...others] = node.permissions;
        const own = domain === 0 ? owner : `${owner[0]}${domain}`;
        child = {
          value: n === parts.length - 1 ? value : "",
          permissions: [own, ...others],
          children: new Map(),
        };
        node.children.set(part, child);
        this.touched.add(`/${parts.slice(0, n).join("/")}`);
      }
      node = child;
    }
  }

  has(path: string): boolean {
    return this.#at(partsOf(path)) !== undefined;
  }

  /** All of it, as text. */
  get text(): string {
    const lines: string[] = [];
    const show = (path: string, { value, permissions, children }: ModelNode) => {
      lines.push(`${path} = ${value} (${permissions.join(" ")})`);
      for (const [name, child] of children) {
        show(path === "/" ? `/${name}` : `${path}/${name}`, child);
      }
    };
    show("/", this.root);
    return lines.join("\n");
  }
}
