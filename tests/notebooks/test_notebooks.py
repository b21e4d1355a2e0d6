"""The notebooks as a platform runs them: headless, in folders like its own, the wheel from a file; the small model in place of theirs."""

import contextlib
import functools
import http.server
import json
import shutil
import threading

import pytest

from conftest import MODEL, Ground


@contextlib.contextmanager
def ground(*args, **environment):
    made = Ground(*args, **environment)
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def kaggle(tmp_path, registry, wheel):
    """A Kaggle notebook with the wheel in an attached dataset."""
    dataset = tmp_path / "kaggle" / "input" / "firepot-wheel"
    dataset.mkdir(parents=True)
    (tmp_path / "kaggle" / "working").mkdir()
    shutil.copy(wheel, dataset)
    with ground(tmp_path, registry, KAGGLE_KERNEL_RUN_TYPE="Batch") as made:
        yield made


@pytest.fixture
def colab(tmp_path, registry):
    """A Colab notebook with no wheel in it."""
    (tmp_path / "content" / "saved").mkdir(parents=True)
    with ground(tmp_path, registry, COLAB_RELEASE_TAG="release-colab-external") as made:
        yield made


@contextlib.contextmanager
def served(folder):
    """A web server of a folder's files, on loopback; its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_kaggle_notebook_from_a_dataset(kaggle):
    done, outputs = kaggle.notebook("kaggle.ipynb", "/kaggle/working", [MODEL])
    assert outputs, done.stderr
    _, install, machine, up, chat, verify, report = outputs
    assert "installing the wheels of an attached dataset: /kaggle/input/firepot-wheel/firepot-" in install
    assert "GPU T4 x2; it needs a verified phone number" in machine
    assert "ok    network" in machine
    assert f"serves {MODEL}" in up
    assert "Chat" in chat
    assert "warm-64" in verify and "decode_tokens_per_s" in verify
    assert "<iframe sandbox" in report
    working = kaggle.root / "kaggle" / "working"
    assert (working / "report.html").stat().st_size > 20_000
    assert (working / "trial.tar.gz").exists()
    assert any((working / "firepot").iterdir()), "the state is kept in the saved folder"
    trial = next((kaggle.root / "tmp" / "firepot-home" / "trials").iterdir())
    manifest = json.loads((trial / "manifest.json").read_text())
    assert {"proof/ps.json", "proof/versions.json"} <= set(manifest["files"])
    assert json.loads((trial / "proof" / "ps.json").read_text())["models"][0]["name"] == MODEL

    # The kernel went; the server did not. The cell is run again and attaches.
    again = kaggle.python(f"import firepot; print(firepot.up({MODEL!r}, home='/tmp/firepot-home'))")
    assert f"{MODEL} is loaded in the server at http://127.0.0.1:" in again
    asked = kaggle.python("import firepot; print(len(firepot.attach('/tmp/firepot-home').ask('Say hello.', num_predict=8)))")
    assert int(asked) > 0


def install(ground):
    folder = ground.root / "kaggle" / "input" / "firepot-wheel"
    names = [f"/kaggle/input/firepot-wheel/{file.name}" for file in folder.iterdir()]
    ground.run("/tmp/venv/bin/python", "-m", "pip", "install", "-q", "--no-index", *names).check_returncode()


def test_what_goes_wrong_in_a_notebook_is_told_and_loses_nothing(kaggle):
    install(kaggle)
    # An interrupted cell is run again.
    up = f"import firepot; print(firepot.up({MODEL!r}, home='/tmp/firepot-home', state='/kaggle/working/firepot'))"
    interrupted = kaggle.run("timeout", "-s", "INT", "0.6", "/tmp/venv/bin/python", "-c", up)
    assert interrupted.returncode == 124 and "KeyboardInterrupt" in interrupted.stderr, interrupted.stderr
    assert MODEL in kaggle.python(up)

    # A second notebook on the same saved folder.
    second = kaggle.run("/tmp/venv/bin/python", "-c", up.replace("firepot-home", "second"))
    assert second.returncode != 0
    assert "/kaggle/working/firepot" in second.stderr and "hint: " in second.stderr, second.stderr

    # The disk budget is reached while two models are pulled.
    pull = "import firepot; firepot.pull('other:135m', 'smollm2:135m', home='/tmp/third')"
    full = kaggle.run("/tmp/venv/bin/python", "-c", pull, FIREPOT_DISK_BUDGET="150MB")
    assert "disk budget" in full.stderr and "--disk-budget" in full.stderr, full.stderr
    assert len(kaggle.run("/tmp/venv/bin/firepot", "--home", "/tmp/third", "list").stdout.splitlines()) == 2

    # No way to the hubs: on Kaggle that is a switch.
    offline = kaggle.run("/tmp/venv/bin/python", "-c", pull, FIREPOT_REGISTRY="http://127.0.0.1:9/")
    assert "Turn on internet" in offline.stderr, offline.stderr
    assert "fails network" in kaggle.python("import firepot; firepot.doctor(network=True)", FIREPOT_REGISTRY="http://127.0.0.1:9/")

    packed = kaggle.run("/tmp/venv/bin/firepot", "--home", "/tmp/third", "doctor", "--share", "/tmp/doctor.tar.gz")
    assert packed.returncode == 0 and (kaggle.root / "tmp" / "doctor.tar.gz").exists()


def test_a_wheel_for_another_system_is_told(kaggle):
    folder = kaggle.root / "kaggle" / "input" / "firepot-wheel"
    wheel = next(folder.iterdir())
    wheel.rename(folder / wheel.name.replace("manylinux_2_35", "manylinux_2_99"))
    done, _ = kaggle.notebook("kaggle.ipynb", "/kaggle/working", [MODEL])
    assert done.returncode != 0 and "pip takes no wheel for Linux on x86-64 with glibc 2.35" in done.stderr


def test_the_colab_notebook_from_an_address(colab, wheel):
    with served(wheel.parent) as address:
        done, outputs = colab.notebook("colab.ipynb", "/content", [MODEL], FIREPOT_WHEEL_URL=f"{address}/{wheel.name}")
    assert outputs, done.stderr
    assert "installing from FIREPOT_WHEEL_URL" in outputs[1]
    assert "Runtime > Change runtime type > T4 GPU" in outputs[2]
    assert "<iframe sandbox" in outputs[-1]
    refused = colab.run("/tmp/venv/bin/firepot", "--home", "/tmp/other", "serve", "--public", "ngrok")
    assert refused.returncode == 1
    assert "Colab does not allow this" in refused.stderr and "--plan-allows" in refused.stderr


def test_what_is_no_wheel_is_told_before_anything_is_installed(colab, tmp_path_factory):
    page = tmp_path_factory.mktemp("page")
    (page / "firepot-0.1.0-py3-none-any.whl").write_text("<!doctype html><title>Not found</title>")
    with served(page) as address:
        done, _ = colab.notebook("colab.ipynb", "/content", [MODEL], FIREPOT_WHEEL_URL=f"{address}/firepot-0.1.0-py3-none-any.whl")
    assert done.returncode != 0 and "is no wheel (a web page?)" in done.stderr
    done, _ = colab.notebook("colab.ipynb", "/content", [MODEL])
    assert done.returncode != 0 and "attach a dataset with Firepot's wheel" in done.stderr
