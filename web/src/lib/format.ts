// Numbers, times and names as people read them.

import { timeOf } from "./range";
import { t, language } from "./text.svelte";
import type { Amount, Value } from "./api";

const prefixes = ["", "k", "M", "G", "T", "P", "E"];

function scaled(value: number, unit: string): string {
  let size = Math.abs(value);
  let at = 0;
  for (; size >= 999.5 && at < prefixes.length - 1; at += 1) size /= 1000;
  const digits = at === 0 && Number.isInteger(value) ? 0 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  const space = unit || at ? "\u202f" : "";
  return `${value < 0 ? "−" : ""}${size.toFixed(digits)}${space}${prefixes[at]}${unit}`;
}

/** 1000 to a k, as links are sold. */
export const bytes = (value: number): string => scaled(value, "B");
export const bits = (bytesPerSecond: number): string => scaled(bytesPerSecond * 8, "bit/s");
export const short = (value: number): string => scaled(value, "");
export const whole = (value: number): string => new Intl.NumberFormat(language()).format(value);

/** An amount in all, or of each second. */
export function amount(value: number, of: Amount): string {
  return of === "bytes" ? bytes(value) : short(value);
}

export function rate(value: number, of: Amount): string {
  return of === "bytes" ? bits(value) : scaled(value, "/s");
}

export function percent(part: number, digits = 1): string {
  return new Intl.NumberFormat(language(), { style: "percent", maximumFractionDigits: digits }).format(part);
}

/** A change from one amount to another, with its sign. */
export function change(now: number, before: number): string {
  if (!before) return "";
  const part = now / before - 1;
  const sign = part > 0 ? "+" : part < 0 ? "−" : "±";
  return sign + percent(Math.abs(part), Math.abs(part) < 0.1 ? 1 : 0);
}

export function nanoseconds(value: number | null): string {
  if (value === null) return "–";
  if (value < 1e6) return `${(value / 1e3).toFixed(0)}\u202fµs`;
  if (value < 1e9) return `${(value / 1e6).toFixed(value < 1e7 ? 2 : 1)}\u202fms`;
  return `${(value / 1e9).toFixed(2)}\u202fs`;
}

export function seconds(value: number): string {
  for (const [size, unit] of [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
  ] as const) {
    if (value >= 2 * size) return `${Math.floor(value / size)}\u202f${unit}`;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}\u202fs`;
}

const pad = (value: number, digits = 2): string => String(value).padStart(digits, "0");

export function clock(time: Date, withSeconds = true): string {
  return `${pad(time.getHours())}:${pad(time.getMinutes())}` + (withSeconds ? `:${pad(time.getSeconds())}` : "");
}

export function day(time: Date): string {
  return `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
}

/** Local time, the date only where it is another day. */
export function time(value: string | number): string {
  const found = new Date(value);
  const today = day(found) === day(new Date());
  return today ? clock(found) : `${day(found)} ${clock(found)}`;
}

/** A range in a few words. */
export function range(from: string, to: string): string {
  const relative = /^-(\d+)([smhdw])$/.exec(from);
  if (relative && to === "now") return t("range.last", { length: `${relative[1]}\u202f${relative[2]}` });
  return `${from.startsWith("-") ? from : time(timeOf(from))} – ${to === "now" ? t("range.now") : time(timeOf(to))}`;
}

const protocols: Record<number, string> = {
  ...{ 1: "ICMP", 2: "IGMP", 4: "IPIP", 6: "TCP", 17: "UDP", 33: "DCCP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH" },
  ...{ 58: "ICMPv6", 89: "OSPF", 103: "PIM", 112: "VRRP", 132: "SCTP" },
};
const rcodes = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
const services: Record<number, string> = {
  ...{ 22: "ssh", 25: "smtp", 53: "domain", 80: "http", 123: "ntp", 143: "imap", 443: "https", 445: "smb", 853: "dot" },
  ...{ 1883: "mqtt", 3306: "mysql", 3389: "rdp", 5432: "postgresql", 6379: "redis", 51820: "wireguard" },
};

export const protocol = (number: number): string => protocols[number] ?? String(number);
export const rcode = (number: number | null): string => (number === null ? t("dns.unanswered") : (rcodes[number] ?? String(number)));

const controls = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** Text that others chose, with what would move or hide other text made visible. */
export function plain(text: string): string {
  return text.replace(controls, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A value of a dimension. */
export function value(dimension: string, found: Value | undefined): string {
  if (found === null || found === undefined) return t("value.none");
  if (found === "") return t("value.none");
  switch (dimension) {
    case "protocol":
      return found === 0 ? t("value.non_ip") : protocol(Number(found));
    case "family":
      return found === 0 ? t("value.non_ip") : `IPv${found}`;
    case "dns_rcode":
      return rcode(Number(found));
    case "service_port":
    case "server_port": {
      const service = services[Number(found)];
      return service ? `${found} ${service}` : String(found);
    }
    default:
      return plain(String(found));
  }
}

/** TCP flags, as tcpdump names them. */
export function flags(bits: number): string {
  return ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"].filter((_, at) => bits & (1 << at)).join(" ");
}
