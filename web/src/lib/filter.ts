// Conditions in the filter's language, as a click makes them.

import type { Value } from "./api";

const words: Record<string, string> = {
  agent: "agent",
  device: "dev",
  application: "app",
  domain: "domain",
  src_addr: "src host",
  dst_addr: "dst host",
  client_addr: "host",
  server_addr: "host",
  src_port: "src port",
  dst_port: "dst port",
  client_port: "port",
  server_port: "port",
  service_port: "port",
  protocol: "proto",
  vlan: "vlan",
};

/** A text that means itself, in quotes where it must be; null where the language has none for it. */
export function quoted(text: string): string | null {
  const literal = text.replace(/[*?[]/g, "[$&]");
  if (/^[\w.:@/[\]*?-]+$/.test(literal) && !/^(and|or|not)$/i.test(literal)) return literal;
  const quote = ["'", '"'].find((each) => !literal.includes(each));
  return quote === undefined ? null : quote + literal + quote;
}

/** What is true of flows with this value; null where the language cannot say it. */
export function term(dimension: string, value: Value | undefined): string | null {
  if (value === undefined || typeof value === "boolean") return null;
  if (dimension === "domain" && !value) return "not domain '*'";
  if (dimension === "vlan" && value === null) return "not vlan";
  if (value === null || value === "") return null;
  if (dimension === "direction") return String(value);
  if (dimension === "family") return value === 4 ? "ip" : value === 6 ? "ip6" : null;
  const word = words[dimension];
  if (!word || (word.endsWith("port") && Number(value) === 0)) return null;
  const text = typeof value === "number" ? String(value) : quoted(value);
  return text === null ? null : `${word} ${text}`;
}

/** Both: `and` and `or` have equal rank, so what has an `or` stands in parentheses. */
export function both(filter: string, more: string): string {
  if (!filter.trim()) return more;
  if (filter.includes(more)) return filter;
  return /\bor\b|\|\|/.test(filter) ? `(${filter}) and ${more}` : `${filter} and ${more}`;
}
