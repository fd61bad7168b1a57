import { defineConfig } from "vite"

/** The page of `waybill dashboard`, into what is published beside the command. It loads nothing from anywhere else. */
export default defineConfig({
  root: import.meta.dirname,
  base: "./",
  build: {
    outDir: "../dist/page",
    emptyOutDir: true,
    target: "es2022",
    // The content security policy of the dashboard lets no inline data through but images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false }
  }
})
