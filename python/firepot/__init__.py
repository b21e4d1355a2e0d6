"""Firepot in a notebook: a server in the background, a chat in a cell, measurements as frames.

Everything here starts the program ``firepot`` of this package or talks to its server on loopback.
"""

from pathlib import Path

from ._program import FirepotError, run
from ._server import Server, attach, down, pull, up
from ._trial import Report, Trial, report, verify

__all__ = [
    "FirepotError", "Report", "Server", "Trial", "attach", "chat", "claims", "doctor", "down", "fit", "pull", "report", "up", "verify",
]  # fmt: skip


def doctor(*, home=None, network=False):
    """Prints what this machine is, what works, what does not, and why; with ``network`` the model hubs are asked too."""
    run(["doctor", *(["--network"] if network else [])], home=home)


def fit(*models, home=None, on=None):
    """Prints whether models fit, how, and what limits them; without any, the whole catalogue."""
    run(["fit", *models, *(["--on", on] if on else [])], home=home)


def claims(name):
    """The file with claims that came with this package, such as ``kaggle-t4x2``."""
    folder = Path(__file__).parent / "claims"
    file = folder / f"{name}.toml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.toml")))
        raise FirepotError(f"there are no claims called {name!r}", f"there are {known}")
    return file


def chat(model=None, *, home=None, new=False):
    """A chat in this cell; see :class:`firepot._chat.Chat`."""
    try:
        from ._chat import Chat
    except ImportError as error:
        raise FirepotError(
            f"the chat needs a package that is not installed: {error.name}", "pip install anywidget"
        ) from None
    return Chat(attach(home), model, new)
