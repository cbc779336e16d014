// The command that asks the same: `wiremeter top` or `wiremeter flows`.

import type { Parameters } from "./api";

function quoted(text: string): string {
  return /^[\w.:,/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** null where no command asks that. */
export function cli(path: string, parameters: Parameters): string | null {
  if (path !== "top" && path !== "flows") return null;
  const by = Array.isArray(parameters.by) ? parameters.by.join(",") : (parameters.by ?? "");
  const words = ["wiremeter", path];
  const options: [string, unknown][] = [
    ["--server", new URL(".", document.baseURI).href.replace(/\/$/, "")],
    ["--by", by],
    ["--since", String(parameters.from ?? "").replace(/^-/, "")],
    ["--until", parameters.to === "now" ? "" : parameters.to],
    ["--filter", parameters.filter],
    ["--amount", parameters.sort],
    ["--once", parameters.once],
    ["--limit", parameters.limit],
  ];
  for (const [name, value] of options) if (value) words.push(name, quoted(String(value)));
  return words.join(" ");
}
