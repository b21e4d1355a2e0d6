"""Measurements: a trial as the program writes it, its figures as frames, its report in the cell."""

import html
import json
import subprocess
import time
from pathlib import Path

from ._program import FirepotError, find, home_of, run

# What a case is looked at for first. Its time to first token is of one kind: cold, warm, of a cached prefix, or under load.
MAIN = ["ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "gap_p99_ms", "throughput_tokens_per_s"]
TTFT = {f"ttft_{kind}_ms" for kind in ("cold", "warm", "prefix_hit", "loaded")}


def verify(model, *, suite="standard", home=None, out=None, claims=None, seed=None, target=None):
    """Measures what a model really does here, and returns the :class:`Trial`. ``claims`` is a file whose claims are answered; a refuted
    one is no failure of the measurement, and is told in the report."""
    out = Path(out) if out else home_of(home) / "trials" / time.strftime(f"%Y%m%dT%H%M%S-{_safe(model)}")
    args = ["verify", model, "--suite", suite, "--out", out]
    for name, value in {"--seed": seed, "--target": target}.items():
        args += [] if value is None else [name, value]
    run(args, home=home)
    return Trial(out, claims=[claims] if claims else [])


def report(*trials, claims=()):
    """One report of trials, each a session: shown in the cell, or written with ``.save(FILE)``."""
    if not trials:
        raise FirepotError("no trial was named", "firepot.report(firepot.verify(MODEL))")
    found = [trial if isinstance(trial, Trial) else Trial(trial) for trial in trials]
    files = [*claims, *(file for trial in found for file in trial.claims)]
    options = [word for file in dict.fromkeys(map(str, files)) for word in ("--claims", file)]
    return Report([str(trial.path) for trial in found], options)


class Trial:
    """A trial's bundle. ``cases``, ``figures``, ``requests`` and ``quality`` are pandas frames."""

    def __init__(self, path, claims=()):
        self.path = Path(path)
        self.claims = list(claims)
        if not (self.path / "trial.json").is_file():
            raise FirepotError(f"{self.path} is no bundle of a trial", "it is the folder that firepot verify names at its end")

    @property
    def summary(self):
        """What follows from the samples, as the bundle has it."""
        return json.loads((self.path / "summary.json").read_text())

    @property
    def cases(self):
        """A row for each case with the medians of its main metrics."""
        rows = {}
        for figure in self.summary["figures"]:
            metric = "ttft_ms" if figure["metric"] in TTFT else figure["metric"]
            if figure["case"] and metric in MAIN:
                place = {"case": figure["case"], "target": figure["target"]}
                rows.setdefault(tuple(place.values()), place)[metric] = figure["value"]
        return _frame(rows.values()).reindex(columns=["case", "target", *MAIN]).round(1)

    @property
    def figures(self):
        """Each metric of each case: its value, its interval and what that covers, how many samples."""
        return _frame(self.summary["figures"])

    @property
    def requests(self):
        """Each request with its stamps, in microseconds of the trial's clock."""
        return _frame(self._lines("requests.jsonl"), flat=True)

    @property
    def quality(self):
        """Each task with what was asked and whether the answer was right."""
        return _frame(self._lines("quality.jsonl"), flat=True)

    def check(self):
        """Hashes every file and computes every figure again."""
        return "\n".join(run(["check", self.path], show=False))

    def share(self, file):
        """Packs the bundle without names, paths and addresses."""
        run(["check", self.path, "--share", file], show=False)
        return Path(file)

    def _lines(self, name):
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def __repr__(self):
        return f"Trial({str(self.path)!r})"


class Report:
    """A report, as one page without script."""

    def __init__(self, bundles, options):
        self._args = [*bundles, *options]

    def _made(self, form):
        made = subprocess.run([find(), "report", *self._args, "--format", form], capture_output=True, text=True)
        if made.returncode != 0:
            raise FirepotError(made.stderr.strip().removeprefix("error: "))
        return made.stdout

    def save(self, file):
        """Writes it as HTML."""
        Path(file).write_text(self._made("html"))
        return Path(file)

    def markdown(self):
        """The same as Markdown."""
        return self._made("md")

    def _repr_html_(self):
        page = html.escape(self._made("html"), quote=True)
        return f'<iframe sandbox srcdoc="{page}" style="width:100%;height:720px;border:1px solid #8884"></iframe>'

    def __repr__(self):
        return self.markdown()


def _frame(rows, flat=False):
    try:
        import pandas
    except ImportError:
        raise FirepotError("frames need pandas, which is not installed", "pip install pandas") from None
    return pandas.json_normalize(rows) if flat else pandas.DataFrame(rows)


def _safe(name):
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
