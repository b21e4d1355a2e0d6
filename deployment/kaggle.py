# %% [markdown]
# # Firepot on Kaggle
# Settings, by hand: **Accelerator: GPU T4 x2** and **Internet: on** (both need a verified phone number), **Persistence: files** if chats are to
# outlive the session. Keep the notebook private: what is saved has your chats in it. Then run all cells; running one again attaches to what runs.

# %% What is wanted
MODELS = ["deepseek-r1:8b", "qwen2.5-coder:7b", "dolphin-mistral:7b"]
# Attached datasets, the folder that outlives the session (20 GB), and scratch disk for the models.
INPUT, SAVED, SCRATCH = "/kaggle/input", "/kaggle/working", "/tmp"

# %% Install: the first way that works
import glob, os, platform, shutil, subprocess, sys, urllib.request

def pip_install(wheels):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--retries", "1", "--timeout", "10"]
    # The chat in a cell needs anywidget, from beside the wheel or from the package index; without either the rest works.
    folder, wheel = os.path.dirname(wheels[0]), next(wheel for wheel in wheels if "cuda" not in wheel)
    if subprocess.run([*pip, "--find-links", folder, f"{wheel}[notebook]", *wheels]).returncode:
        if subprocess.run([*pip, "--no-index", *wheels]).returncode:
            raise SystemExit(f"pip takes no wheel for Linux on x86-64 with glibc 2.35 and Python 3.10 or newer here: {platform.platform()}")

wheels = sorted(glob.glob(f"{INPUT}/**/firepot*.whl", recursive=True))
if wheels:
    print("installing the wheels of an attached dataset:", *wheels)
elif urls := os.environ.get("FIREPOT_WHEEL_URL", "").split():
    print("installing from FIREPOT_WHEEL_URL:", *urls)
    for url in urls:
        wheels.append(f"{SCRATCH}/{url.rsplit('/', 1)[-1]}")
        with urllib.request.urlopen(url) as answer, open(wheels[-1], "wb") as file:
            shutil.copyfileobj(answer, file)
        if open(wheels[-1], "rb").read(2) != b"PK":
            raise SystemExit(f"{url} is no wheel (a web page?): give the address of the file itself")
elif source := os.environ.get("FIREPOT_SOURCE", ""):
    print(f"building from {source}: about 20 minutes on 4 cores, 40 with CUDA; a wheel in a dataset takes seconds")
    build = f"git clone --depth 1 {source} {SCRATCH}/source && cd {SCRATCH}/source && scripts/setup.sh notebook && PATH=$HOME/.cargo/bin:$PATH cargo xtask dist --out {SCRATCH} $(command -v nvcc >/dev/null && echo --cuda)"
    subprocess.run(["bash", "-c", build], check=True)
    wheels = sorted(glob.glob(f"{SCRATCH}/firepot*.whl"))
else:
    raise SystemExit("attach a dataset with Firepot's wheel, or set FIREPOT_WHEEL_URL or FIREPOT_SOURCE")
pip_install(wheels)

# %% What this machine is, and what fits before anything is downloaded
import firepot

os.environ.update(FIREPOT_HOME=f"{SCRATCH}/firepot-home", FIREPOT_DISK_BUDGET="20GB")
firepot.doctor(network=True)
firepot.fit(*MODELS)

# %% Up: models are pulled at the same time, placed by the planner, and served on loopback
firepot.up(*MODELS, state=f"{SAVED}/firepot")

# %% Chat, in this cell
firepot.chat()

# %% Measure, and answer the claims (suite="standard" takes 8 minutes and has pictures among its proofs)
trial = firepot.verify(MODELS[0], suite="smoke", claims=firepot.claims("kaggle-t4x2"))
trial.cases

# %% The report, kept with the evidence and its proofs
report = firepot.report(trial)
report.save(f"{SAVED}/report.html")
trial.share(f"{SAVED}/trial.tar.gz")
report
