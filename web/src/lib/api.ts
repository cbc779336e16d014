// The server's HTTP API: the one place that asks it.

export type Value = string | number | boolean | null;
export type Row = Record<string, any>;
export type Parameters = Record<string, string | number | readonly string[] | null | undefined>;

/** What all answers with rows have; `total` and `step_seconds` where the question has them. */
export interface Answer<R = Row> {
  rows: R[];
  next: string | null;
  from: string;
  to: string;
  step_seconds: number;
  total: Amounts;
  once: string;
}

export interface Amounts {
  packets: number;
  bytes: number;
  skbs: number;
  flows: number;
}
export type Amount = keyof Amounts;

export interface Finding {
  severity: "fault" | "warning" | "note";
  kind: string;
  text: string;
  advice: string;
  device: string;
  direction: string;
}

export interface Agent {
  agent: string;
  state: "up" | "away";
  heard_ns: number;
  stored_until_ns: number | null;
  version: string;
  clock_skew_seconds: number | null;
  missing_batches: number;
  duplicates: number;
  dropped: Record<string, number>;
  heartbeat: {
    uptime_seconds: number;
    interval_seconds: number;
    spool: { batches: number; bytes: number; oldest_ns: number | null; dropped: Record<string, number> };
    host: Record<string, string | null>;
    devices: {
      name: string;
      attach: Record<string, string>;
      addresses: string[];
      mac: string;
      speed_mbits: number | null;
      mtu: number | null;
      driver: string;
    }[];
    findings: Finding[];
  } | null;
}

/** An answer that is none. kind: the server's word for it, or "network". */
export class Problem extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly kind: string,
  ) {
    super(message);
  }
}

const key = "wiremeter.token";
let token = sessionStorage.getItem(key) ?? localStorage.getItem(key) ?? "";
let whenUnknown = (): void => {};

/** Called when the server wants to know who asks. */
export function onUnknown(callback: () => void): void {
  whenUnknown = callback;
}

/** The token that questions are asked with: of this tab, or kept in this browser. */
export function signIn(text: string, isKept: boolean): void {
  token = text.trim();
  (isKept ? localStorage : sessionStorage).setItem(key, token);
}

export function signOut(): void {
  token = "";
  sessionStorage.removeItem(key);
  localStorage.removeItem(key);
  whenUnknown();
}

export function isSignedIn(): boolean {
  return token !== "";
}

/** The URL of a question, whole, as others can ask it. */
export function urlOf(path: string, parameters: Parameters = {}): URL {
  const url = new URL(`v1/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    const text = Array.isArray(value) ? value.join(",") : String(value ?? "");
    if (text) url.searchParams.set(name, text);
  }
  return url;
}

async function fetched(url: URL, signal?: AbortSignal, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...init.headers };
    response = await fetch(url, { ...init, headers, signal: signal ?? null, credentials: "omit" });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Problem("", 0, "network");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  if (response.status === 401) whenUnknown();
  throw new Problem(told.error ?? response.statusText, response.status, told.kind ?? "http");
}

export async function ask<T = Answer>(path: string, parameters?: Parameters, signal?: AbortSignal): Promise<T> {
  return (await fetched(urlOf(path, parameters), signal)).json();
}

/** Saves an answer as a file, in a form that the server makes. */
export async function download(path: string, parameters: Parameters, form: "csv" | "parquet"): Promise<void> {
  const content = await (await fetched(urlOf(path, { ...parameters, format: form }))).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = `wiremeter-${path.replace("/", "-")}.${form}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Server-sent events, with the token that an EventSource could not send. Ends with the signal, or an error. */
export async function* events<T>(
  path: string,
  parameters: Parameters,
  signal: AbortSignal,
  whenOpen: () => void,
): AsyncGenerator<T> {
  const response = await fetched(urlOf(path, parameters), signal, { headers: { Accept: "text/event-stream" } });
  whenOpen();
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const pieces = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = pieces.pop()!;
    for (const piece of pieces) {
      const data = piece
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart());
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}
