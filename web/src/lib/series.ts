// Rows of /v1/series as lines of a chart: rates of each step, the remainder last.

import type { Amount, Answer, Row } from "./api";
import { colours } from "./colour";
import * as format from "./format";
import { named, t } from "./text.svelte";

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

/** The total of the earlier range that an answer has beside, as a line over the same times. */
export function beforeOf(answer: Answer, times: readonly number[], amount: Amount): Line {
  const rates: number[] = Array(times.length).fill(0);
  const step = answer.step_seconds * 1000;
  let total = 0;
  for (const row of answer.rows) {
    const size = row[`${amount}_before`] ?? 0;
    total += size;
    const at = (Date.parse(row.time) - (times[0] ?? 0)) / step;
    if (at >= 0 && at < rates.length) rates[at]! += size / answer.step_seconds;
  }
  const average = total / ((Date.parse(answer.to) - Date.parse(answer.from)) / 1000);
  return { key: "\u0000before", name: t("chart.before"), colour: null, rates, average, total, values: null, isBefore: true };
}

/** Columns of an answer without dimensions, as lines; per: what a value is divided by. */
export function linesOf(answer: Answer, columns: readonly string[], per: number): Series {
  const rows = answer.rows.filter((row) => !row.other || answer.rows.every((each) => each.other));
  return {
    times: rows.map((row) => Date.parse(row.time)),
    lines: columns
      .filter((column) => rows.length && column in rows[0]!)
      .map((column, colour) => {
        const rates = rows.map((row) => (row[column] ?? 0) / per);
        const total = rates.reduce((sum, rate) => sum + rate, 0);
        return { key: column, name: named("column", column), colour, rates, average: total / Math.max(1, rates.length), total, values: null };
      }),
  };
}
