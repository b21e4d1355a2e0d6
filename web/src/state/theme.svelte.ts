// Light, dark, or as the system is. `data-theme` on the root always says which one it is now.
import { recall, remember } from "../lib/storage";

export type Theme = "light" | "dark" | "system";

const THEMES: readonly Theme[] = ["system", "light", "dark"];
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");

class ThemeState {
  chosen = $state<Theme>(THEMES.find((theme) => theme === recall("theme")) ?? "system");

  /** The next of system, light and dark. */
  next(): void {
    this.choose(THEMES[(THEMES.indexOf(this.chosen) + 1) % THEMES.length] ?? "system");
  }

  choose(chosen: Theme): void {
    this.chosen = chosen;
    remember("theme", chosen);
    this.apply();
  }

  apply(): void {
    const dark = this.chosen === "dark" || (this.chosen === "system" && systemDark.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  }
}

export const theme = new ThemeState();

export function startTheme(): void {
  theme.apply();
  systemDark.addEventListener("change", () => theme.apply());
}
