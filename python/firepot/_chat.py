"""A chat in a cell. The front end talks to this kernel, and the kernel to the server on loopback: no tunnel, no web page.

The chat is kept by the server like any other: an answer goes on while the kernel restarts, and the next ``firepot.chat()`` shows it.
"""

import json
import threading
import time
from pathlib import Path

import anywidget
import traitlets

from ._program import FirepotError

FILES = Path(__file__).parent
#: Seconds without a word from the server, which says something at least every five, after which it is asked anew.
SILENCE = 20


class Chat(anywidget.AnyWidget):
    """Goes on with the newest chat of the home, or begins one. ``new`` begins one in any case."""

    _esm = (FILES / "chat.js").read_text()
    _css = (FILES / "chat.css").read_text()

    models = traitlets.List(traitlets.Unicode()).tag(sync=True)
    model_name = traitlets.Unicode().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    #: The way from the first message to the newest.
    messages = traitlets.List(traitlets.Dict()).tag(sync=True)
    #: What the server does for the answer that is being made; empty when there is none.
    busy = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(self, server, model=None, new=False):
        super().__init__()
        self._server, self._lock, self._answer = server, threading.RLock(), None
        self.models = server.models()
        kept = server.get("/firepot/v1/chats?limit=1")["chats"]
        if kept and not new:
            self._id = kept[0]["id"]
            self.model_name = model or kept[0]["model"] or server.first()
        else:
            self.model_name = model or server.first()
            self._id = self._begin()
        self.on_msg(lambda _widget, content, _buffers: self._told(content))
        self._listen()

    # What the front end says.

    def _told(self, content):
        try:
            self.error = ""
            getattr(self, f"_on_{content.get('kind')}")(content)
        except (FirepotError, OSError) as error:
            self.error = str(error)

    def _on_hello(self, _content):
        """A view came up: what was streamed so far becomes part of the picture."""
        with self._lock:
            self.send_state("messages")

    def _on_ask(self, content):
        self._server.post(f"/firepot/v1/chats/{self._id}/answer", {"kind": "send", "content": str(content["text"])})

    def _on_stop(self, _content):
        self._server.post(f"/firepot/v1/chats/{self._id}/stop", {})

    def _on_new(self, _content):
        self._id = self._begin()
        self._listen()

    def _on_model(self, content):
        name = str(content["name"])
        self._server.send("PATCH", f"/firepot/v1/chats/{self._id}", {"model": name})
        self.model_name = name

    def _begin(self):
        return self._server.post("/firepot/v1/chats", {"model": self.model_name, "settings": {}})["id"]

    # What the server says.

    def _listen(self):
        threading.Thread(target=self._follow, args=(self._id,), daemon=True, name="firepot-chat").start()

    def _follow(self, chat):
        pause = 0.3
        while self.comm is not None and self._id == chat:
            try:
                with self._server.open("POST", f"/firepot/v1/events?chat={chat}", timeout=SILENCE) as stream:
                    for name, data in _events(stream):
                        if self._id != chat:
                            return
                        pause = 0.3
                        self._take(name, data)
                self.busy = "the server went; trying again"
            except (FirepotError, OSError) as error:
                self.busy = f"the server cannot be reached ({str(error).splitlines()[0]}); trying again"
            time.sleep(pause)
            pause = min(pause * 2, 5)

    def _take(self, name, data):
        with self._lock:
            if name == "chat":
                self.title = data["title"]
                self.messages = _way(data["messages"], data["leaf_id"])
                self._live(data["live"])
            elif name == "message":
                rest = [message for message in self.messages if message["id"] != data["message"]["id"]]
                self.messages = [*rest, _shown(data["message"])]
                if data["message"]["role"] == "assistant" and data["message"].get("stats"):
                    self.busy = ""
            elif name == "progress":
                self._live(data)
            elif name == "delta":
                self._add(data)
            elif name == "messages_removed":
                self.messages = [message for message in self.messages if message["id"] not in data["ids"]]

    def _live(self, live):
        self.busy = "" if live is None else {"decode": "writing", "prefill": "reading"}.get(live["state"], live["state"])

    def _add(self, delta):
        """A piece of the answer: told to the views as a piece, and kept for views that come later."""
        for message in self.messages:
            if message["id"] == delta["id"]:
                message["thinking"] += delta.get("thinking") or ""
                message["content"] += delta.get("content") or ""
                self.busy = "writing"
                self.send({"kind": "delta", **delta})


def _way(messages, leaf):
    """From the first message to this one."""
    by_id = {message["id"]: message for message in messages}
    way = []
    while leaf in by_id and len(way) < len(by_id):
        way.append(_shown(by_id[leaf]))
        leaf = by_id[leaf]["parent_id"]
    return way[::-1]


def _shown(message):
    stats = message.get("stats") or {}
    told = stats.get("error") or ("" if message["state"] == "complete" else "stopped" if stats else "")
    return {
        "id": message["id"],
        "role": message["role"],
        "content": message["content"] or "",
        "thinking": message["thinking"] or "",
        "note": told if not stats.get("hint") else f"{told} ({stats['hint']})",
    }


def _events(stream):
    """Server-sent events: name and data of each."""
    name, data = "message", []
    for line in stream:
        line = line.decode(errors="replace").rstrip("\r\n")
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield name, json.loads("\n".join(data))
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
