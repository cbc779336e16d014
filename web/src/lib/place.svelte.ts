// Where the reader is: the view and all of its state, which is the URL's and nowhere else.

export const views = ["overview", "explore", "flows", "map", "live", "agents", "names"] as const;
export type View = (typeof views)[number] | "flow";
export type Changes = Record<string, string | null | undefined>;

/** What goes along from view to view. */
const carried = ["from", "to", "filter", "once"] as const;

class Place {
  view = $state<View>("overview");
  query = $state.raw<Readonly<Record<string, string>>>({});

  constructor() {
    this.#read();
    addEventListener("popstate", () => this.#read());
  }

  get(name: string, otherwise = ""): string {
    return this.query[name] ?? otherwise;
  }

  /** The list of a parameter with commas. */
  list(name: string, otherwise: string): string[] {
    return this.get(name, otherwise).split(",").filter(Boolean);
  }

  /** A link to this view with other state; null takes a parameter away. */
  here(changes: Changes): string {
    return link(this.view, { ...this.query, ...changes });
  }

  /** A link to another view, which keeps the range and the filter. */
  there(view: View, changes: Changes = {}): string {
    const kept = Object.fromEntries(carried.map((name) => [name, this.query[name]]));
    return link(view, { ...kept, ...changes });
  }

  /** Changes this view's state: a step back in the browser undoes it. */
  set(changes: Changes): void {
    this.go(this.here(changes));
  }

  go(href: string): void {
    if (href !== here()) history.pushState(null, "", href);
    this.#read();
  }

  #read(): void {
    const last = location.pathname.split("/").pop() ?? "";
    this.view = last === "flow" || (views as readonly string[]).includes(last) ? (last as View) : "overview";
    this.query = Object.fromEntries(new URLSearchParams(location.search));
  }
}

function here(): string {
  return (location.pathname.split("/").pop() || "overview") + location.search;
}

function link(view: View, query: Changes): string {
  const given = Object.entries(query).filter((entry): entry is [string, string] => !!entry[1]);
  const text = new URLSearchParams(given).toString();
  return view + (text && `?${text}`);
}

export const place = new Place();
