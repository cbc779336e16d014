// What may stand where the filter is being written: the language's words, or a dimension whose values the server knows.

import { quoted } from "./filter";

export interface Completion {
  /** The word that is being written, as a part of the text. */
  start: number;
  end: number;
  prefix: string;
  words: string[];
  dimension: string | null;
  quoted: (value: string) => string;
}

const begin = ["host", "net", "port", "portrange", "proto", "domain", "app", "agent", "dev", "vlan", "tcp", "udp", "icmp", "ip", "ip6"];
const before = ["not", "src", "dst"];
const ways = ["rx", "tx"];
const valued: Record<string, string> = {
  ...{ agent: "agent", dev: "device", ifname: "device", domain: "domain", app: "application", application: "application" },
  ...{ host: "src_addr", port: "service_port", vlan: "vlan" },
};
const protocols = ["tcp", "udp", "icmp", "icmp6", "sctp", "gre", "esp"];

export function completing(text: string, caret: number): Completion {
  const left = text.slice(0, caret);
  const start = left.length - (/(?:'[^']*|"[^"]*|[^\s()!])*$/.exec(left)?.[0].length ?? 0);
  const raw = left.slice(start);
  const prefix = raw.replace(/^['"]/, "");
  const last = /([^\s()!]+)[\s(!]*$/.exec(left.slice(0, start))?.[1]?.toLowerCase() ?? "";
  const found = { start, end: caret, prefix, words: [] as string[], dimension: null as string | null, quoted: (value: string) => quoted(value) ?? value };
  if (last in valued) return { ...found, dimension: valued[last]! };
  const words = last === "proto" ? protocols : last === "src" || last === "dst" ? ["host", "net", "port"] : joins(last) ? ["and", "or"] : [...begin, ...before, ...ways];
  const lower = prefix.toLowerCase();
  found.words = words.filter((word) => word.startsWith(lower) && word !== lower);
  return found;
}

/** Whether a term has ended before, so that a word joins what comes. */
function joins(last: string): boolean {
  return last !== "" && !["and", "or", "not", "&&", "||", "net", "portrange"].includes(last) && !before.includes(last);
}
