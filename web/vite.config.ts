import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  base: "./", // also below a prefix of a reverse proxy
  build: {
    outDir: "../src/wiremeter/server/web/built",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the policy lets nothing in that is not a file of the server
    modulePreload: { polyfill: false },
    target: "es2022",
    license: { fileName: "licenses.md" }, // what is in the bundle wants to be named
  },
});
