// What the page remembers in this browser: theme, sidebar, drafts. A full or forbidden localStorage is no error;
// things are then remembered until the page is closed.

const memory = new Map<string, string>();
const PREFIX = "firepot.";

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(PREFIX + key) ?? memory.get(key) ?? null;
  } catch {
    return memory.get(key) ?? null;
  }
}

export function remember(key: string, value: string | null): void {
  memory.delete(key);
  try {
    if (value === null) localStorage.removeItem(PREFIX + key);
    else localStorage.setItem(PREFIX + key, value);
  } catch {
    if (value !== null) memory.set(key, value);
  }
}
