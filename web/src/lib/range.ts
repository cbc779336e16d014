// Ranges of time as the URL has them: RFC 3339, or -1h before now.

export interface Range {
  from: string;
  to: string;
}

const units: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400, w: 7 * 86400 };
export const presets = ["-5m", "-15m", "-1h", "-6h", "-1d", "-1w", "-4w"] as const;

/** Milliseconds since 1970; NaN for what cannot be read. */
export function timeOf(text: string, now = Date.now()): number {
  if (text === "now") return now;
  const relative = /^-(\d+(?:\.\d+)?)([smhdw])$/.exec(text);
  if (relative) return now - Number(relative[1]) * units[relative[2]!]! * 1000;
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text);
}

export function textOf(time: number): string {
  return new Date(Math.round(time)).toISOString();
}

export function isLive(range: Range): boolean {
  return range.to === "now";
}

/** Both ends as milliseconds. */
export function ends({ from, to }: Range, now = Date.now()): [number, number] {
  return [timeOf(from, now), timeOf(to, now)];
}

/** The same length of time, moved by so many of its lengths. */
export function moved(range: Range, lengths: number): Range {
  const [start, end] = ends(range);
  const by = (end - start) * lengths;
  return end + by >= Date.now() ? latest(end - start) : { from: textOf(start + by), to: textOf(end + by) };
}

/** The range made longer or shorter, about its middle; one that ends now still does. */
export function scaled(range: Range, factor: number): Range {
  const [start, end] = ends(range);
  const length = Math.max(10_000, (end - start) * factor);
  if (isLive(range)) return latest(length);
  const middle = (start + end) / 2;
  return { from: textOf(middle - length / 2), to: textOf(Math.min(Date.now(), middle + length / 2)) };
}

/** The same range, so much earlier. */
export function earlier(range: Range, seconds: number): Range {
  const [start, end] = ends(range);
  return { from: textOf(start - seconds * 1000), to: textOf(end - seconds * 1000) };
}

function latest(milliseconds: number): Range {
  return { from: `-${Math.round(milliseconds / 1000)}s`, to: "now" };
}
