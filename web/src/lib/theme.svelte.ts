// Light or dark: what the system likes, until the reader says otherwise.

const key = "wiremeter.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const kept = localStorage.getItem(key);

class Theme {
  name = $state<"light" | "dark">(kept === "light" || kept === "dark" ? kept : system.matches ? "dark" : "light");

  constructor() {
    this.#show();
    system.addEventListener("change", () => {
      if (!localStorage.getItem(key)) this.#set(system.matches ? "dark" : "light");
    });
  }

  turn(): void {
    this.#set(this.name === "dark" ? "light" : "dark");
    localStorage.setItem(key, this.name);
  }

  #set(name: "light" | "dark"): void {
    this.name = name;
    this.#show();
  }

  #show(): void {
    document.documentElement.dataset.theme = this.name;
  }
}

export const theme = new Theme();
