/**
 * Domains, and what joins them: event channels and grants, as a picture in text (80 columns) or SVG.
 *
 * @module
 */
import type { Host } from "../../xen/host.ts";
import { hex, INSPECT } from "../values.ts";

/** Something between two domains. */
interface Link {
  readonly kind: "channel" | "grant";
  readonly from: number;
  readonly to: number;
  /** What is written at its ends, and along it. */
  readonly at: string;
  readonly there: string;
  readonly text: string;
}
/** Two domains, and all between them. */
interface Pair {
  readonly from: number;
  readonly to: number;
  readonly links: readonly Link[];
}

/** What a host's domains have with one another; of one domain if it is named. */
function pairsOf({ peers }: Host, only?: number): readonly Pair[] {
  const pairs = new Map<string, Link[]>();
  const add = (link: Link) => {
    if (only !== undefined && link.from !== only && link.to !== only) return;
    const key = [link.from, link.to].sort((a, b) => a - b).join();
    pairs.set(key, [...pairs.get(key) ?? [], link]);
  };
  for (const { id, channels, grants } of [...peers.values()].sort((a, b) => a.id - b.id)) {
    for (const { state, port, domain, peer, sent } of channels.all) {
      // Each is told by one of its ends.
      if (state !== "interdomain" || domain < id || (domain === id && peer < port)) continue;
      const back = peers.get(domain)?.channels.get(peer)?.sent ?? 0;
      const text = `events: ${sent} left, ${back} right`;
      add({
        kind: "channel",
        from: id,
        to: domain,
        at: `port ${port}`,
        there: `port ${peer}`,
        text,
      });
    }
    for (const [handle, { domain, ref, at, readonly }] of grants.maps) {
      add({
        kind: "grant",
        from: domain,
        to: id,
        at: `ref ${ref}`,
        there: at < 0 ? `handle ${handle}` : `frame ${hex(at)}`,
        text: readonly ? "granted, to be read" : "granted",
      });
    }
  }
  return [...pairs].map(([key, links]) => {
    const [from, to] = key.split(",").map(Number);
    return { from, to, links };
  });
}

const WIDTH = 80, BOX = 19;

/** A picture: it prints as text, and `svg()` draws it. */
export class Picture {
  readonly #pairs: readonly Pair[];
  readonly #nameOf: (id: number) => string;

  /** @ignore Made by `hv.picture()` and `dom.eventChannels.picture()`. */
  constructor(host: Host, only?: number) {
    this.#pairs = pairsOf(host, only);
    const names = new Map(host.domains.map(({ id, name }) => [id, name]));
    this.#nameOf = (id) => `domain ${id}${names.has(id) ? ` "${names.get(id)}"` : ""}`;
  }

  /** The picture in text, at most 80 columns wide. */
  get text(): string {
    if (this.#pairs.length === 0) return "no domains are joined by event channels or grants";
    return this.#pairs.map((pair) => this.#pairText(pair)).join("\n\n");
  }
  #pairText({ from, to, links }: Pair): string {
    const right = WIDTH - 2 * BOX,
      edge = (left: string, end: string) => `${left}${"─".repeat(BOX - 2)}${end}`;
    const wall = (text: string) => `│${` ${text}`.slice(0, BOX - 2).padEnd(BOX - 2)}│`;
    const frame = (left: string, end: string) =>
      edge(left, end) + " ".repeat(right) + edge(left, end);
    const name = (id: number) => this.#nameOf(id).slice(0, WIDTH / 2 - 1);
    return [
      name(from) + name(to).padStart(WIDTH - name(from).length),
      frame("┌", "┐"),
      ...links.map((link) => {
        const turned = link.from !== from,
          [at, there] = turned ? [link.there, link.at] : [
            link.at,
            link.there,
          ];
        return wall(at) + arrow(link, turned, right) + wall(there);
      }),
      frame("└", "┘"),
    ].join("\n");
  }

  /** The picture as an SVG document. */
  svg(): string {
    let y = 10;
    const parts: string[] = [];
    for (const { from, to, links } of this.#pairs) {
      const height = 24 * links.length + 12;
      parts.push(
        label(20, y + 14, this.#nameOf(from)),
        label(780, y + 14, this.#nameOf(to), "end"),
        box(20, y + 22, height),
        box(620, y + 22, height),
      );
      links.forEach((link, n) => {
        const at = y + 22 + 24 * (n + 1) - 4, turned = link.from !== from;
        const ends = turned ? [link.there, link.at] : [link.at, link.there];
        const both = link.kind === "channel";
        parts.push(
          label(30, at, ends[0]),
          label(630, at, ends[1]),
          `<line x1="184" y1="${at - 4}" x2="616" y2="${at - 4}" stroke="black"` +
            (both || turned ? ' marker-start="url(#arrow)"' : "") +
            (both || !turned ? ' marker-end="url(#arrow)"' : "") +
            (both ? "" : ' stroke-dasharray="6 3"') + "/>",
          label(400, at - 8, link.text, "middle"),
        );
      });
      y += height + 46;
    }
    return `<svg xmlns="http://www.w3.org/2000/svg" width="800" height="${y}" font-family="monospace" font-size="12">` +
      `<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" ` +
      `orient="auto-start-reverse"><path d="M0 0L8 4L0 8z"/></marker></defs>` +
      `${parts.join("")}</svg>\n`;
  }

  /** @ignore */
  [INSPECT](): string {
    return this.text;
  }
}

/** Between the boxes: double for events, which go both ways; single from who grants to who maps. */
function arrow({ kind, text }: Link, turned: boolean, width: number): string {
  const both = kind === "channel", line = both ? "═" : "─";
  const words = ` ${text} `, left = Math.floor((width - 2 - words.length) / 2);
  const middle = (line.repeat(Math.max(0, left)) + words).padEnd(width - 2, line);
  return `${both || turned ? "<" : line}${middle.slice(0, width - 2)}${
    both || !turned ? ">" : line
  }`;
}

const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
const label = (x: number, y: number, text: string, anchor = "start"): string =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}">${escaped(text)}</text>`;
const box = (x: number, y: number, height: number): string =>
  `<rect x="${x}" y="${y}" width="160" height="${height}" fill="none" stroke="black"/>`;
