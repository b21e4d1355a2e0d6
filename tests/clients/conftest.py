"""A real server with the real small model, for the official clients."""

import contextlib
import json
import os
import pathlib
import subprocess
import time

import pytest

from registry import Registry

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIREPOT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "firepot"
MODEL_FILE = ROOT / "target" / "test-model" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "smollm2:135m"
START_LIMIT_S = 60


class Running:
    """A server over a home."""

    def __init__(self, home, base):
        self.home = home
        self.base = base

    def command(self, *args):
        """What a command of the program prints."""
        done = subprocess.run([FIREPOT, "--home", self.home, *args], check=True, timeout=60, stdout=subprocess.PIPE)
        return done.stdout.decode().strip()


@contextlib.contextmanager
def running(home, *args):
    """A running server with the small model, stopped at the end."""
    subprocess.run([FIREPOT, "--home", home, "import", MODEL_FILE, MODEL], check=True, timeout=60)
    # Models of other programs on this machine are none of the tests' business.
    elsewhere = {"OLLAMA_MODELS": str(home / "none"), "HF_HUB_CACHE": str(home / "none")}
    command = [FIREPOT, "--home", home, "--port", "0", "serve", *args]
    process = subprocess.Popen(command, env=os.environ | elsewhere)
    try:
        yield Running(home, f"http://{wait_for_address(home, process)}")
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The base address of a running server, stopped at the end of the session."""
    with running(tmp_path_factory.mktemp("home")) as server:
        yield server.base


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """A real registry on loopback, stopped at the end of the session."""
    running = Registry(tmp_path_factory.mktemp("hub"))
    try:
        yield running
    finally:
        running.stop()


def wait_for_address(home, process):
    record = home / "run" / "server.json"
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended before it listened"
        if record.exists():
            return json.loads(record.read_text())["address"]
        time.sleep(0.02)
    raise TimeoutError("the server did not listen in time")
