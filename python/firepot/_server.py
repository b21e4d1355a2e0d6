"""The server of a home: started in the background, found again, asked."""

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from ._program import FirepotError, home_of, run


def up(*models, home=None, port=None, ctx=None, parallel=None, state=None, deadline=None, allow_cpu=False, extra=()):
    """Serves in the background with these models loaded, pulling what is missing; returns the :class:`Server`.

    A cell that is run again finds the server that runs and loads what is missing in it. ``state`` is a folder that outlives
    the session; ``extra`` are further options of ``firepot up``.
    """
    options = {"--ctx": ctx, "--parallel": parallel, "--state": state, "--deadline": deadline}
    args = [] if port is None else ["--port", port]
    args += ["up", *models, "--detach", *(["--allow-cpu"] if allow_cpu else []), *extra]
    for name, value in options.items():
        args += [] if value is None else [name, value]
    run(args, home=home)
    return attach(home)


def pull(*models, home=None):
    """Pulls models into the store, all at the same time."""
    run(["pull", *models], home=home)


def down(home=None):
    """Stops the server of a home."""
    run(["down"], home=home)


def attach(home=None):
    """The server that runs on a home, whoever started it."""
    server = Server(home_of(home))
    server.get("/healthz")
    return server


class Server:
    """A running server, on loopback. What it needs to be asked is in its home, in a file of the owner's alone."""

    def __init__(self, home):
        self.home = Path(home)

    @property
    def record(self):
        """What the server wrote of itself when it began to listen."""
        try:
            return json.loads((self.home / "run" / "server.json").read_text())
        except FileNotFoundError:
            raise FirepotError(f"no server is running on {self.home}", "start one: firepot.up()") from None

    @property
    def url(self):
        """Where page and API are, for programs on this machine."""
        record = self.record
        return f"{'https' if record.get('tls') else 'http'}://{record['address']}"

    def open(self, method, path, body=None, timeout=None):
        """Asks a route; the answer is to be read and closed."""
        record = self.record
        request = urllib.request.Request(self.url + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        if record.get("key"):
            request.add_header("authorization", f"Bearer {record['key']}")
        # The certificate is for the name by which others come; the home says who listens at this address of this machine.
        context = ssl._create_unverified_context() if record.get("tls") else None
        handlers = [urllib.request.ProxyHandler({})] + ([urllib.request.HTTPSHandler(context=context)] if context else [])
        try:
            return urllib.request.build_opener(*handlers).open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            raise _refused(error) from None
        except urllib.error.URLError as error:
            raise FirepotError(f"no server answers on {self.home}: {error.reason}", "start one: firepot.up()") from None

    def get(self, path):
        """``GET``s JSON."""
        return self.send("GET", path)

    def post(self, path, body):
        """``POST``s JSON."""
        return self.send("POST", path, body)

    def send(self, method, path, body=None):
        """Asks a route and reads its JSON; text where it is none."""
        with self.open(method, path, body, timeout=600) as answer:
            data = answer.read()
        try:
            return json.loads(data)
        except ValueError:
            return data.decode(errors="replace")

    def models(self):
        """Names of the models in the store."""
        return [model["name"] for model in self.get("/api/tags")["models"]]

    def loaded(self):
        """Names of the models that are loaded."""
        return [model["name"] for model in self.get("/api/ps")["models"]]

    def ask(self, prompt, model=None, **options):
        """One answer as text, without what the model thinks."""
        body = {"model": model or self.first(), "messages": [{"role": "user", "content": prompt}], "stream": False, "options": options}
        return self.post("/api/chat", body)["message"]["content"]

    def first(self):
        """The model that is meant when none is named: one that is loaded, else one of the store."""
        names = self.loaded() or self.models()
        if not names:
            raise FirepotError("the store has no model", "firepot.pull(NAME)")
        return names[0]

    def __repr__(self):
        return f"Firepot at {self.url}: {', '.join(self.loaded()) or 'no model is loaded'}"


def _refused(error):
    try:
        said = json.loads(error.read())
        return FirepotError(said["error"] if isinstance(said["error"], str) else said["error"]["message"], said.get("hint"))
    except (ValueError, KeyError, TypeError):
        return FirepotError(f"the server answered {error.code}")
