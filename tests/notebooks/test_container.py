"""The steps of the Containerfile, as far as they go without an engine: the wheel alone in a bare Python, its command, its health check."""

import pathlib
import re
import shlex
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_LIMIT_S = 30


def steps():
    """Instructions of the last stage, with continued lines joined."""
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(index for index, line in enumerate(lines) if line.startswith("FROM "))
    return [line.split(None, 1) for line in lines[last:]]


def test_the_last_stage_installs_serves_and_is_healthy(tmp_path, wheel):
    stage = dict(reversed(steps()))
    assert stage["USER"] not in ("root", "0")
    install = shlex.split(stage["RUN"].split("&&")[0])
    assert install[:2] == ["pip", "install"]
    venv = tmp_path / "venv"
    subprocess.run(["python3", "-m", "venv", venv], check=True, timeout=120)
    arguments = [str(wheel) if word.startswith("/tmp/") else word for word in install[1:]]
    subprocess.run([venv / "bin" / "python", "-m", "pip", *arguments], check=True, timeout=120)

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [venv / "bin" / "firepot", "serve"]
    assert (stage["ENTRYPOINT"], stage["CMD"]) == ('["firepot"]', '["serve"]')
    server = subprocess.Popen([*command, "--home", tmp_path / "home", "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        check = shlex.split(re.search(r"CMD (.*)", stage["HEALTHCHECK"])[1].replace(":11434", f":{port}"))
        end = time.monotonic() + START_LIMIT_S
        while subprocess.run(check, stderr=subprocess.DEVNULL, timeout=30).returncode != 0:
            assert server.poll() is None and time.monotonic() < end, "it did not become healthy"
            time.sleep(0.2)
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0
