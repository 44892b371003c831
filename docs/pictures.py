"""Pictures of the documentation: `python docs/pictures.py` draws them anew.

Run it in the root of a clone. It runs the toy campaign with its controls in a temporary
folder; the screenshots of its pages take chromium and pillow, and come last.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import numpy as np
from ase.mep import NEB
from ase.optimize import BFGS
from matplotlib.figure import Figure
from rich.console import Console

from alloop import Campaign
from alloop.cli import main
from alloop.history.reader import History
from alloop.report.text.live_display import LiveDisplay

IMAGES = Path("docs/images").absolute()
WIDTH, HEIGHT = 1400, 900  # pixels of a screenshot
NARROW = 390  # likewise, of a telephone


@contextmanager
def toy_campaign() -> Iterator[Campaign]:
    """The finished toy campaign, with its controls and report, in a passing folder."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree("campaigns", Path(name, "campaigns"))
        with chdir(name):  # the report shows the store's path
            file = "campaigns/toy.yaml"
            if main(["run", file, "--controls", "--quiet"]) != 0:
                sys.exit("the toy campaign did not finish")
            if main(["report", "runs/toy.zarr", "--force"]) != 0:
                sys.exit("the toy campaign has no report")
            yield Campaign.from_yaml(file)


def draw_panel(campaign: Campaign) -> None:
    """The panel as it stood in the second round of the campaign."""
    history, rules = campaign.history(), campaign.setup.rules
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, force_terminal=True, width=84, file=nowhere)
        now = [history.entries[0].time]
        display = LiveDisplay("toy", rules, console, clock=lambda: now[0])
        for count, entry in enumerate(history.entries, start=1):
            now[0] = entry.time
            part = history.entries[:count]
            state = History.from_entries(history.path, history.attrs, part).state
            display.observe(state, entry.turn)
            if state.exploration.round == 2 and entry.turn.commands:
                break
        console.print(display.panel())
    console.save_svg(str(IMAGES / "panel.svg"), title="alloop run campaigns/toy.yaml")


def take_screenshot(address: str, name: str, width: int = WIDTH) -> None:
    """Save the first screen of a page as a picture."""
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit(f"no chromium: docs/images/{name} stays as it is")
    from PIL import Image

    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")
        flags += ("--hide-scrollbars", "--disable-background-networking")
        flags += (f"--user-data-dir={profile}", f"--window-size={width},{HEIGHT}")
        shot = Path(profile, name)
        command = [browser, *flags, f"--screenshot={shot}", address]
        subprocess.run(command, check=True, capture_output=True)
        colours = Image.open(shot).convert("RGB").quantize(64)
        colours.save(IMAGES / name, optimize=True)


def draw_report(report: Path) -> None:
    """The first screen of the report."""
    take_screenshot(f"file://{report}", "report.png")


def draw_watch(store: Path) -> None:
    """The live page on a wide and on a narrow screen."""
    command = [sys.executable, "-m", "alloop", "watch", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            words = server.stdout.readline().split()
            address = next(x for x in words if x.startswith("http"))
            take_screenshot(address, "watch.png")
            take_screenshot(address, "watch_narrow.png", NARROW)
        finally:
            server.terminate()


def draw_path(campaign: Campaign) -> None:
    """The path of the page on the use of a model: energy and surprise of its images."""
    atoms = campaign.dataset("expensive")[0].copy()
    atoms.calc = campaign.calculator()
    BFGS(atoms, logfile=None).run(fmax=0.001, steps=200)
    end = atoms.copy()
    height = atoms.positions[1:].mean(axis=0) - atoms.positions[0]
    end.positions[1:] -= 2 * height
    images = [*(atoms.copy() for _ in range(8)), end]
    for image in images:
        image.calc = campaign.calculator()
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate()
    BFGS(band, logfile=None).run(fmax=0.1, steps=20)
    energies = np.array([image.get_potential_energy() for image in images])
    surprise = [image.calc.results["surprise"] for image in images]
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(energies - energies[0], "o-")
    left.set_ylabel("energy, eV")
    right.semilogy(surprise, "s-", color="#e07b39")
    right.axhline(campaign.model().threshold, color="#444", dashes=(4, 3))
    right.annotate("threshold", (0, campaign.model().threshold), va="bottom")
    right.set_ylabel("surprise (uncertainty)")
    for axes in (left, right):
        axes.set_xlabel("image of the band")
    figure.savefig(IMAGES / "path.svg", metadata={"Date": None})


if __name__ == "__main__":
    with toy_campaign() as finished:
        draw_panel(finished)
        draw_path(finished)
        draw_report(finished.store.with_suffix(".html"))
        draw_watch(finished.store)
