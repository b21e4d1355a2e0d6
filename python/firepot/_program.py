"""The program ``firepot``: where it is, and running it with its lines in the cell."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path


class FirepotError(RuntimeError):
    """What went wrong, and what to do about it."""

    def __init__(self, message, hint=None):
        super().__init__(f"{message}\nhint: {hint}" if hint else message)
        self.hint = hint


def find():
    """The program that was installed with this package, else one in the path."""
    folders = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user")]
    # A package in a folder of its own (pip install --target) has its program beside it.
    folders.append(Path(__file__).parent.parent / "bin")
    for folder in folders:
        program = Path(folder) / "firepot"
        if program.is_file():
            return str(program)
    found = shutil.which("firepot")
    if found is None:
        raise FirepotError("the program firepot is not installed", "install the wheel again: pip install --force-reinstall firepot")
    return found


def home_of(home):
    """The home that is meant: named, else as the program itself finds it."""
    return Path(home or os.environ.get("FIREPOT_HOME") or Path.home() / ".firepot")


def run(args, *, home=None, show=True, limit=400):
    """Runs the program to its end and returns what it printed, line by line; a failure is raised with its hint.

    ``show`` prints the lines as they come. An interrupt of the cell reaches the program, which ends in order.
    """
    command = [find(), "--home", str(home_of(home)), *map(str, args)]
    lines = []
    # A process group of its own: the cell's interrupt is passed on once, and not by the terminal too.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                del lines[:-limit]
                if show and not line.startswith(("error: ", "hint: ")):
                    print(line, end="", flush=True)
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait(30)
            raise
    if code != 0:
        said = {word: text for word, _, text in (line.partition(": ") for line in lines) if word in ("error", "hint")}
        raise FirepotError(said.get("error", f"firepot {args[0]} ended with {code}: {' '.join(lines[-3:])}"), said.get("hint"))
    return lines


def in_notebook():
    """Whether there is a front end that shows HTML."""
    return "ipykernel" in sys.modules
