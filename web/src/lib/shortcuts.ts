// The keyboard: the combinations that chat pages share (Open WebUI's, where it has one). On a Mac, Ctrl is ⌘.

export type Command = "new" | "search" | "help" | "stop" | "focus" | "copyAnswer" | "copyCode" | "sidebar";

export const SHORTCUTS: { keys: string; does: string }[] = [
  { keys: "Enter", does: "Send; with Shift, a new line" },
  { keys: "↑", does: "Edit the last question, from an empty box" },
  { keys: "Esc", does: "Stop the answer" },
  { keys: "Ctrl+Shift+O", does: "New chat" },
  { keys: "Ctrl+K", does: "Search chats" },
  { keys: "Ctrl+B", does: "Show or hide the chats" },
  { keys: "Shift+Esc", does: "Back to the message box" },
  { keys: "Ctrl+Shift+C", does: "Copy the last answer" },
  { keys: "Ctrl+Shift+;", does: "Copy the last block of code" },
  { keys: "Ctrl+/", does: "This help" },
];

/** What a key press asks for; `null` for anything else. Pure, so that it is tested without a browser. */
export function commandOf(event: Pick<KeyboardEvent, "key" | "code" | "ctrlKey" | "metaKey" | "shiftKey" | "altKey">): Command | null {
  if (event.key === "Escape") return event.shiftKey ? "focus" : "stop";
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return null;
  if (event.shiftKey) {
    switch (event.code) {
      case "KeyO":
        return "new";
      case "KeyC":
        return "copyAnswer";
      case "Semicolon":
        return "copyCode";
      default:
        return null;
    }
  }
  switch (event.key) {
    case "k":
      return "search";
    case "b":
      return "sidebar";
    case "/":
      return "help";
    default:
      return null;
  }
}
