import { defineConfig } from "vite"

/** The page of the chat. It loads nothing from anywhere else. */
export default defineConfig({
  root: import.meta.dirname,
  base: "./",
  build: {
    outDir: "../dist/page",
    emptyOutDir: true,
    target: "es2022",
    // The content security policy lets no inline data through but images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false }
  }
})
