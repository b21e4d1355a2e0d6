// A Vite plugin for KaTeX's fonts: only the woff2 files are shipped, as files. It
// takes the woff and ttf sources out of KaTeX's stylesheet before Vite reads its
// addresses, and keeps the small fonts from becoming data: addresses, which the
// page's `font-src 'self'` forbids.

import type { Plugin } from "vite";

const OLD_SOURCE = /,\s*url\([^)]*\.(?:woff|ttf)["']?\)\s*format\(["'](?:woff|truetype)["']\)/g;

/** KaTeX's stylesheet with woff2 sources only. */
export function withoutOldFonts(css: string): string {
  return css.replace(OLD_SOURCE, "");
}

function isKatexCss(id: string): boolean {
  return /[\\/]katex[\\/].*\.css(?:\?|$)/.test(id);
}

export function woff2Only(): Plugin {
  return {
    name: "katex-woff2-only",
    enforce: "pre",
    config(user) {
      if (user.build?.assetsInlineLimit !== undefined) return undefined;
      return { build: { assetsInlineLimit: (file: string) => (file.endsWith(".woff2") ? false : undefined) } };
    },
    transform(code, id) {
      return isKatexCss(id) ? { code: withoutOldFonts(code), map: null } : undefined;
    },
  };
}
