// The chat's view in a cell. It knows only the kernel; all text is shown as text.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function shown(message) {
  const thinking = element("pre", {}, message.thinking);
  const content = element("div", { class: "firepot-text" }, message.content);
  const thoughts = element("details", {}, element("summary", {}, "Thinking"), thinking);
  const note = element("div", { class: "firepot-note" }, message.note);
  const root = element("div", { class: `firepot-message firepot-${message.role}`, "data-id": message.id }, thoughts, content, note);
  thoughts.hidden = message.thinking === "";
  note.hidden = message.note === "";
  return { root, thoughts, thinking, content };
}

function render({ model, el }) {
  const parts = new Map();
  const models = element("select", { "aria-label": "Model", onchange: () => model.send({ kind: "model", name: models.value }) });
  const title = element("span", { class: "firepot-title" });
  const fresh = element("button", { type: "button", onclick: () => model.send({ kind: "new" }) }, "New chat");
  const list = element("div", { class: "firepot-list", role: "log", "aria-live": "polite" });
  const busy = element("div", { class: "firepot-busy", role: "status" });
  const error = element("div", { class: "firepot-error", role: "alert" });
  const text = element("textarea", { rows: "2", placeholder: "Ask something. Enter sends, Shift+Enter is a new line.", "aria-label": "Question" });
  const send = element("button", { type: "submit" }, "Send");
  const stop = element("button", { type: "button", onclick: () => model.send({ kind: "stop" }) }, "Stop");
  const form = element("form", { onsubmit: ask }, text, send, stop);
  const root = element("div", { class: "firepot-chat" }, element("div", { class: "firepot-head" }, models, title, fresh), list, busy, error, form);

  function ask(event) {
    event.preventDefault();
    if (text.value.trim() === "" || model.get("busy") !== "") return;
    model.send({ kind: "ask", text: text.value });
    text.value = "";
  }
  // The notebook's own shortcuts must not see what is typed here.
  text.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) form.requestSubmit();
    if (event.key === "Enter" && !event.shiftKey) event.preventDefault();
  });

  const atEnd = () => list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  function withEnd(change) {
    const follows = atEnd();
    change();
    if (follows) list.scrollTop = list.scrollHeight;
  }

  function showMessages() {
    withEnd(() => {
      parts.clear();
      list.replaceChildren();
      for (const message of model.get("messages")) {
        const part = shown(message);
        parts.set(message.id, part);
        list.append(part.root);
      }
    });
  }
  function showHead() {
    models.replaceChildren(...model.get("models").map((name) => element("option", { value: name }, name)));
    models.value = model.get("model_name");
    title.textContent = model.get("title");
  }
  function showState() {
    busy.textContent = model.get("busy");
    error.textContent = model.get("error");
    send.hidden = model.get("busy") !== "";
    stop.hidden = !send.hidden;
  }
  function take(message) {
    const part = message.kind === "delta" ? parts.get(message.id) : undefined;
    if (!part) return;
    withEnd(() => {
      part.thinking.append(message.thinking ?? "");
      part.content.append(message.content ?? "");
      part.thoughts.hidden = part.thinking.textContent === "";
    });
  }

  const changes = { "change:messages": showMessages, "change:models change:model_name change:title": showHead, "change:busy change:error": showState, "msg:custom": take };
  for (const [names, handler] of Object.entries(changes)) model.on(names, handler);
  showHead();
  showMessages();
  showState();
  el.append(root);
  model.send({ kind: "hello" });
  return () => {
    for (const [names, handler] of Object.entries(changes)) model.off(names, handler);
  };
}

export default { render };
