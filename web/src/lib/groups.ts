// Hosts in groups, so that a picture of thousands can be read.

import type { Amount, Row } from "./api";

export type Grouping = "host" | "network" | "domain" | "agent";

/** IPv4 by /24, IPv6 by /64. */
export function networkOf(address: string): string {
  if (!address.includes(":")) return `${address.split(".").slice(0, 3).join(".")}.0/24`;
  const [head = "", tail] = address.split("::");
  const first = head ? head.split(":") : [];
  const last = tail ? tail.split(":") : [];
  const whole = tail === undefined ? first : [...first, ...Array(8 - first.length - last.length).fill("0"), ...last];
  const prefix = whole.slice(0, 4).join(":");
  return `${prefix.replace(/(:0)+$/, "")}::/64`;
}

/** The registered part of a domain, as far as its last two labels tell; of short second ones (co.uk) three. */
export function siteOf(domain: string): string {
  const labels = domain.split(".");
  const second = labels[labels.length - 2] ?? "";
  return labels.slice(second.length <= 3 && labels.length > 2 ? -3 : -2).join(".");
}

export interface Node {
  id: string;
  value: number;
  isOther: boolean;
}
export interface Edge {
  from: string;
  to: string;
  value: number;
}

/** Who talks to whom: rows put together by the names of their ends, all but the largest nodes in one, the remainder. */
export function graphOf(
  rows: readonly Row[],
  amount: Amount,
  ends: (row: Row) => readonly [string, string],
  most: number,
  other: string,
): { nodes: Node[]; edges: Edge[] } {
  const sizes = new Map<string, number>();
  const pairs = rows
    .filter((row) => row[amount] > 0)
    .map((row) => ({ ends: row.other ? ([other, other] as const) : ends(row), value: row[amount] as number }));
  for (const { ends: each, value } of pairs)
    for (const end of new Set(each)) sizes.set(end, (sizes.get(end) ?? 0) + value);
  sizes.delete(other);
  const shown = new Set([...sizes].sort((a, b) => b[1] - a[1]).slice(0, most).map(([name]) => name));
  const nodes = new Map<string, Node>();
  const edges = new Map<string, Edge>();
  for (const { ends: each, value } of pairs) {
    const [from, to] = each.map((end) => (shown.has(end) ? end : other)) as [string, string];
    for (const id of new Set([from, to])) {
      const node = nodes.get(id) ?? { id, value: 0, isOther: id === other };
      node.value += value;
      nodes.set(id, node);
    }
    const edge = edges.get(`${from}\u0000${to}`) ?? { from, to, value: 0 };
    edge.value += value;
    edges.set(`${from}\u0000${to}`, edge);
  }
  return { nodes: [...nodes.values()].sort((a, b) => b.value - a.value), edges: [...edges.values()] };
}

export interface Spot {
  x: number;
  y: number;
}

/** Where nodes stand, within 0 to 1: those that talk are near each other. The same graph always gives the same. */
export function spread(nodes: readonly Node[], edges: readonly Edge[]): Map<string, Spot> {
  const spots = nodes.map((_, at) => {
    const angle = at * 2.399963; // the golden angle: nobody begins on top of another
    const radius = 0.45 * Math.sqrt((at + 0.5) / nodes.length);
    return { x: 0.5 + radius * Math.cos(angle), y: 0.5 + radius * Math.sin(angle) };
  });
  const number = new Map(nodes.map((node, at) => [node.id, at]));
  const apart = 0.7 / Math.sqrt(Math.max(1, nodes.length)); // Fruchterman and Reingold, 1991
  for (let step = 0; step < 200; step += 1) {
    const heat = 0.08 * (1 - step / 200);
    const moves = spots.map(() => ({ x: 0, y: 0 }));
    for (let a = 0; a < spots.length; a += 1) {
      for (let b = a + 1; b < spots.length; b += 1) {
        const [dx, dy] = [spots[a]!.x - spots[b]!.x, spots[a]!.y - spots[b]!.y];
        const push = (apart * apart) / Math.max(1e-4, dx * dx + dy * dy);
        moves[a]!.x += dx * push;
        moves[a]!.y += dy * push;
        moves[b]!.x -= dx * push;
        moves[b]!.y -= dy * push;
      }
    }
    for (const edge of edges) {
      const [a, b] = [number.get(edge.from)!, number.get(edge.to)!];
      if (a === b) continue;
      const [dx, dy] = [spots[a]!.x - spots[b]!.x, spots[a]!.y - spots[b]!.y];
      const pull = Math.hypot(dx, dy) / apart / 4;
      moves[a]!.x -= dx * pull;
      moves[a]!.y -= dy * pull;
      moves[b]!.x += dx * pull;
      moves[b]!.y += dy * pull;
    }
    spots.forEach((spot, at) => {
      const move = moves[at]!;
      move.x += (0.5 - spot.x) * 0.6;
      move.y += (0.5 - spot.y) * 0.6;
      const length = Math.hypot(move.x, move.y) || 1;
      spot.x += (move.x / length) * Math.min(length, heat);
      spot.y += (move.y / length) * Math.min(length, heat);
    });
  }
  const [xs, ys] = [spots.map((spot) => spot.x), spots.map((spot) => spot.y)];
  const fit = (values: number[], value: number): number => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return high - low < 1e-6 ? 0.5 : (value - low) / (high - low);
  };
  return new Map(nodes.map((node, at) => [node.id, { x: fit(xs, spots[at]!.x), y: fit(ys, spots[at]!.y) }]));
}
