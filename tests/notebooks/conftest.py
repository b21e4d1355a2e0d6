"""Grounds like the platforms', the wheel, and a registry with the small model."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "clients"))

from registry import Registry  # noqa: E402

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
MODEL_FILE = ROOT / "target" / "test-model" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "smollm2:135m"


class Ground:
    """A machine with a platform's folders, a Python environment in /tmp/venv, and nothing of Firepot."""

    def __init__(self, root, registry, **environment):
        self.root = root
        self.environment = {
            "PATH": os.environ["PATH"],
            "CARGO_TARGET_DIR": str(TARGET),
            "HOME": "/tmp/home",
            "FIREPOT_REGISTRY": f"http://{registry.address}/",
            "HF_ENDPOINT": f"http://{registry.address}/",
            "FIREPOT_NO_CALIBRATION": "1",
            "FIREPOT_PORT": "0",
            **environment,
        }
        (root / "tmp" / "home").mkdir(parents=True)
        self.run(ROOT / "tests" / "notebooks" / "venv.sh", "/tmp/venv").check_returncode()

    def run(self, *command, timeout=300, **environment):
        """Runs a program there to its end."""
        return subprocess.run(
            [ROOT / "tests" / "notebooks" / "ground.sh", self.root, *command],
            env=self.environment | environment,
            timeout=timeout,
            capture_output=True,
            text=True,
        )

    def python(self, code, **environment):
        """Runs Python there; what it printed."""
        done = self.run("/tmp/venv/bin/python", "-c", code, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def notebook(self, name, folder, models, **environment):
        """Executes a notebook of the project in a folder of the ground, with other models; its outputs as text, cell by cell."""
        notebook = json.loads((ROOT / "notebooks" / name).read_text())
        for cell in notebook["cells"]:
            lines = cell["source"].split("\n")
            cell["source"] = "\n".join(f"MODELS = {models!r}" if line.startswith("MODELS = ") else line for line in lines)
        file = self.root / folder.lstrip("/") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(notebook))
        # What `jupyter execute` runs; the command itself is with those who lent the package.
        execute = ["-c", "from nbclient.cli import main; main()", "--inplace", "--timeout=240", f"{folder}/{name}"]
        done = self.run("/tmp/venv/bin/python", *execute, **environment)
        if done.returncode != 0:
            return done, []
        cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
        return done, [outputs_of(cell) for cell in cells]

    def down(self):
        """Stops the server that a notebook left running, as it should."""
        self.run("/tmp/venv/bin/python", "-c", "import firepot; firepot.down(home='/tmp/firepot-home')")


def outputs_of(cell):
    """All that a cell printed and showed, as text."""
    texts = []
    for output in cell["outputs"]:
        texts.append(output.get("text", ""))
        texts += [value for value in output.get("data", {}).values() if isinstance(value, (str, list))]
    return "".join("".join(text) for text in texts)


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """A real registry on loopback with the small model in it."""
    running = Registry(tmp_path_factory.mktemp("hub"))
    try:
        model = bytearray(MODEL_FILE.read_bytes())
        running.push("library/smollm2", "135m", [("model", bytes(model))])
        # Another file of the same model: its last weight is another one.
        model[-1] ^= 1
        running.push("library/other", "135m", [("model", bytes(model))])
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def wheel():
    """The wheel that was built."""
    found = sorted((TARGET / "dist").glob("firepot-*.whl"))
    assert found, "there is no wheel: make wheel"
    return found[-1]
