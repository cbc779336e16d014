// Rows of /v1/series as lines of a chart: rates of each step, the remainder last.

import type { Amount, Answer, Row } from "./api";
import { colours } from "./colour";
import * as format from "./format";
import { t } from "./text.svelte";

export interface Line {
  key: string;
  name: string;
  colour: number | null;
  /** Of each step, a second. */
  rates: number[];
  average: number;
  total: number;
  /** Values by dimension; null of the remainder. */
  values: Row | null;
  isBefore?: boolean;
}

export interface Series {
  /** The beginnings of the steps, milliseconds. */
  times: number[];
  lines: Line[];
}

/** No value is this. */
export const remainder = "\u0000\u0000";

export function keyOf(row: Row, by: readonly string[]): string {
  return row.other ? remainder : by.map((name) => String(row[name] ?? "")).join("\u0000");
}

export function nameOf(row: Row, by: readonly string[]): string {
  return row.other ? t("value.other") : by.map((name) => format.value(name, row[name])).join(" · ") || t("amount.total");
}

/** Only whole steps are shown: what began before the range or still lasts would look like a drop. */
export function seriesOf(answer: Answer, by: readonly string[], amount: Amount): Series {
  const step = answer.step_seconds * 1000;
  const [from, to] = [Date.parse(answer.from), Date.parse(answer.to)];
  const first = Math.ceil(from / step) * step;
  const count = Math.max(0, Math.floor((to - first) / step));
  const times = Array.from({ length: count }, (_, number) => first + number * step);
  const lines = new Map<string, Line>();
  for (const row of answer.rows) {
    const key = keyOf(row, by);
    let line = lines.get(key);
    if (!line) {
      const values = row.other ? null : row;
      line = { key, name: nameOf(row, by), colour: null, rates: Array(count).fill(0), average: 0, total: 0, values };
      lines.set(key, line);
    }
    line.total += row[amount];
    const at = (Date.parse(row.time) - first) / step;
    if (at >= 0 && at < count) line.rates[at] = row[amount] / answer.step_seconds;
  }
  const found = [...lines.values()];
  for (const line of found) line.average = line.total / ((to - from) / 1000);
  found.sort((a, b) => Number(!a.values) - Number(!b.values) || b.total - a.total);
  const numbers = colours(found.filter((line) => line.values).map((line) => line.key));
  for (const line of found) line.colour = line.values ? (numbers.get(line.key) ?? 0) : null;
  return { times, lines: found.filter((line) => line.total > 0) };
}

/** Each line on top of those before it; an earlier period stands for itself. */
export function stacked(lines: readonly Line[]): number[][] {
  let below: number[] | null = null;
  return lines.map((line) => {
    if (line.isBefore) return line.rates;
    const sums: number[] = line.rates.map((rate, at) => rate + (below?.[at] ?? 0));
    below = sums;
    return sums;
  });
}
