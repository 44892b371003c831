"""MD with a model on its own: what is written, what stops, what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write
from safetensors import safe_open
from safetensors.numpy import save

from alloop.cli.app import run_command as alloop
from alloop.cli.exits import FRUITLESS, MISTAKE
from alloop.cli.model_commands import md
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.species import Domain
from alloop.core.units import ASE_VELOCITY, Floats
from alloop.generation import Generation, load, to_bytes
from alloop.jobs.md_job import MDProgress, MDRun
from alloop.md.barostat import Barostat
from alloop.md.dynamics import DynamicsSettings
from alloop.md.integrate import Langevin, VelocityVerlet
from alloop.potentials.analytic import Morse
from alloop.potentials.pairwise import PairBasis, PairwisePotential

BASIS = PairBasis((1,), radial=8, cutoff=4.0)


def hydrogen() -> Frame:
    return from_atoms(molecule("H2"))


def generation(sign: float = 1.0) -> Generation:
    """Pair functions fitted to a Morse bond; sign -1 drives it apart."""
    rng = np.random.default_rng(0)
    batch = pack_frames([hydrogen()] * 100)
    batch = batch.with_positions(batch.positions + 0.1 * rng.standard_normal((200, 3)))
    rows = BASIS.design_matrix(batch).forces.reshape(-1, BASIS.size)
    truth = Morse(depth=4.5, width=1.9, length=0.74).predict(batch).forces
    found = np.linalg.lstsq(rows, truth.ravel(), rcond=1e-6)[0]
    return Generation(PairwisePotential(BASIS, sign * found), None, None, {})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "pair.model"
    file.write_bytes(to_bytes(generation())[1])
    return file


@pytest.fixture
def start(tmp_path: Path) -> Path:
    file = tmp_path / "start.xyz"
    write(file, molecule("H2"))
    return file


_NVE = DynamicsSettings(VelocityVerlet(), temperature=300.0, timestep=0.1, stride=5)


def walk(out: Path, **changes: object) -> MDRun:
    dynamics = DynamicsSettings(temperature=300.0, timestep=0.25, stride=5)
    plain = MDRun(generation(), [hydrogen()], dynamics, steps=40, walkers=2, out=out)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_only_what_the_model_learned_walks_unless_asked_for_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = Domain.of(pack_frames([hydrogen()]))
    file = tmp_path / "known.model"
    file.write_bytes(to_bytes(replace(generation(), domain=domain))[1])
    start, out = tmp_path / "ion.xyz", tmp_path / "out.extxyz"
    ion = molecule("H2")
    ion.info = {"charge": 1, "spin": 1}
    write(start, ion)
    command = ["md", str(file), str(start), "--out", str(out), "--steps", "10"]
    assert alloop(command) == 2
    assert "H2 (charge 0, 2S 0)" in capsys.readouterr().err
    assert not out.exists()
    assert alloop([*command, "--outside"]) == 0
    assert read(out, index="-1").info["step"] == 10


def test_an_older_model_says_that_it_cannot_be_checked(tmp_path: Path) -> None:
    run = walk(tmp_path / "a.extxyz")
    run.run()
    assert any("older alloop" in note for note in run.notes)
    with pytest.warns(UserWarning, match="older alloop"):
        generation().calculator()


def test_frames_hold_what_the_model_says_of_them(tmp_path: Path) -> None:
    found = walk(tmp_path / "a.extxyz").run()
    assert [walker.step for walker in found] == [40, 40]
    frames = read(tmp_path / "a.extxyz", index=":")
    assert [(a.info["walker"], a.info["step"]) for a in frames[:6]] == [
        *((0, 0), (1, 0), (0, 5), (1, 5), (0, 10), (1, 10))
    ]
    assert len(frames) == 18
    assert frames[-1].info["time"] == 10.0
    own = generation().predict(pack_frames([from_atoms(a) for a in frames]))
    energies = [atoms.get_potential_energy() for atoms in frames]
    forces: Floats = np.concatenate([atoms.get_forces() for atoms in frames])
    np.testing.assert_allclose(energies, own.energies, atol=1e-6)
    np.testing.assert_allclose(forces, own.forces, atol=1e-6)


def test_velocities_first_and_last_frame_are_in_the_trajectory(tmp_path: Path) -> None:
    found = walk(tmp_path / "a.xyz", steps=43, dynamics=_NVE).run()
    frames = read(tmp_path / "a.xyz", index=":")[::2]  # of the first walker
    assert [a.info["step"] for a in frames] == [*range(0, 41, 5), 43]
    total = [a.get_total_energy() for a in frames]
    assert np.ptp(total) < 0.05 * np.ptp([a.get_kinetic_energy() for a in frames])
    last = frames[-1].get_velocities() / ASE_VELOCITY
    np.testing.assert_allclose(last, found[0].velocities, atol=1e-7)


def test_the_frame_where_a_guard_stops_a_walker_is_written(tmp_path: Path) -> None:
    model = generation(sign=-1.0)
    (walker,) = walk(tmp_path / "a.xyz", model=model, steps=500, walkers=1).run()
    frames = read(tmp_path / "a.xyz", index=":")
    assert "stopped" not in frames[-2].info
    assert frames[-1].info["stopped"] == str(walker.stopped).replace("Å", "A")
    assert frames[-1].info["step"] > walker.step


def test_more_steps_go_on_and_a_run_in_two_parts_is_the_same_run(
    tmp_path: Path,
) -> None:
    whole, parts = tmp_path / "whole.xyz", tmp_path / "parts.xyz"
    walk(whole, steps=600).run()
    walk(parts, steps=200).run()

    def stop(progress: MDProgress) -> None:
        assert (progress.done, progress.taken) == (400, 200)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk(parts, steps=600).run(stop)
    with parts.open("ab") as file:
        file.write(b"torn")
    walk(parts, steps=600).run()
    assert parts.read_bytes() == whole.read_bytes()


def test_another_run_never_writes_over_this_one(tmp_path: Path) -> None:
    out = tmp_path / "a.xyz"
    walk(out).run()
    before = out.read_bytes()
    with pytest.raises(InputError, match="another dynamics, seed"):
        walk(out, seed=1, dynamics=DynamicsSettings(temperature=20.0)).run()
    foreign = tmp_path / "mine.xyz"
    foreign.write_text("precious")
    with pytest.raises(InputError, match="is there already"):
        walk(foreign).run()
    assert (out.read_bytes(), foreign.read_text()) == (before, "precious")
    with pytest.raises(InputError, match="that ends in"):
        walk(tmp_path / "a.pdb").run()


@pytest.mark.parametrize("suffix", [".traj", ".db"])
def test_other_files_are_written_at_the_end(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"a{suffix}"
    walk(out).run()
    walk(out, steps=60).run()
    frames = read(out, index=":")
    assert len(frames) == 26
    assert frames[-1].get_kinetic_energy() > 0.0
    assert np.isfinite(frames[-1].get_potential_energy())
    assert frames[-1].get_forces().shape == (2, 3)


def compressed(out: Path, **changes: object) -> MDRun:
    """Hydrogen in cells wider than the cutoff: molecules of a gas."""
    cell = replace(hydrogen(), cell=6.0 * np.eye(3), pbc=(True,) * 3)
    barostat = Barostat(4e-4, time=20.0, compressibility=100.0, interval=3)
    dynamics = DynamicsSettings(
        temperature=300.0, timestep=0.25, stride=5, barostat=barostat
    )
    return walk(out, **({"start": [cell], "dynamics": dynamics} | changes))


def test_a_run_at_constant_pressure_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    one, two, half = (tmp_path / f"{name}.xyz" for name in ("one", "two", "half"))
    compressed(one, steps=400).run()

    def stop(progress: MDProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compressed(two, steps=400).run(stop)
    assert read(two, index="-1").info["step"] == 200
    compressed(two, steps=400).run()
    assert one.read_bytes() == two.read_bytes()
    frames = read(one, index="::2")
    volumes = np.array([atoms.get_volume() for atoms in frames])
    assert len(np.unique(volumes)) > 20
    own = generation().predict(pack_frames([from_atoms(a) for a in frames]))
    stress = [atoms.get_stress() for atoms in frames]
    np.testing.assert_allclose(stress, own.stress, atol=1e-6)
    other = replace(compressed(one).dynamics, barostat=Barostat(0.2))
    with pytest.raises(InputError, match="another dynamics"):
        compressed(one, dynamics=other).run()
    with pytest.raises(InputError, match="expected cells that repeat"):
        compressed(half, start=[hydrogen()]).run()


def test_md_takes_a_pressure_in_gigapascals(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, out = tmp_path / "cell.xyz", tmp_path / "out.xyz"
    write(start, molecule("H2", cell=[6.0] * 3, pbc=True))
    command = ["md", str(model), str(start), "--out", str(out), "--steps", "40"]
    assert alloop([*command, "--pressure", "2", "--cell", "anisotropic"]) == 0
    frames = read(out, index=":")
    assert not np.allclose(frames[-1].cell, frames[0].cell)
    assert alloop([*command, "--pressure", "2", "--kind", "verlet"]) == 2
    message = capsys.readouterr().err
    assert "--pressure: no such key here; only `kind: langevin` has it" in message


def test_a_walker_stops_before_it_breaks_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: Path
) -> None:
    pushed = tmp_path / "push.model"
    pushed.write_bytes(to_bytes(generation(sign=-1.0))[1])
    out = tmp_path / "a.xyz"
    command = ["md", str(pushed), str(start), "--out", str(out), "--steps", "500"]
    assert alloop([*command, "--walkers", "2"]) == FRUITLESS
    said = capsys.readouterr().out
    assert "walker 1 stopped at step" in said
    assert "0 walkers of 2 reached the last step" in said
    free = [str(tmp_path / "b.xyz") if x == str(out) else x for x in command]
    off = "{force: null, contact: null, bond: null, heat: null}"
    assert alloop([*free, "--guards", off]) == 0
    assert "1 walker of 1 reached the last step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--timestep", "50"], "--timestep: "),
        (["--temperature", "1e9"], "--temperature: "),
        (["--kind", "npt"], "--kind: "),
        (["--guards", "{bonds: 2}"], "--guards.bonds: "),
        (["--guards", "{bond: -2, force: x}"], "--guards.bond: "),
        (["--guards", "{surprise: 2}", "--surprise", "3"], "leave one out"),
        (["--out", "x.dcd"], ".extxyz"),
    ],
)
def test_options_are_those_of_campaigns_and_refused_before_anything_is_loaded(
    tmp_path: Path, options: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # neither the model nor the frames exist: the mistake in the options comes first
    command = ["md", "no.model", "no.xyz", "--out", str(tmp_path / "a.xyz"), *options]
    assert alloop(command) == MISTAKE
    message = capsys.readouterr().err
    assert text in message
    assert "no.model" not in message


def test_a_kill_costs_nothing_but_time(
    tmp_path: Path, model: Path, start: Path
) -> None:
    whole, killed = tmp_path / "whole.xyz", tmp_path / "killed.xyz"

    def command(out: Path) -> list[str]:
        options = ["--steps", "3000", "--compile", "off", "--timestep", "0.25"]
        return ["md", str(model), str(start), "--out", str(out), *options]

    assert alloop(command(whole)) == 0
    code = "import sys; from alloop.cli import main; sys.exit(main(sys.argv[1:]))"
    kills = 0
    while not kills:
        child = subprocess.Popen([sys.executable, "-c", code, *command(killed)])
        while not killed.with_name("killed.xyz.state").exists():
            assert child.poll() is None
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert killed.read_bytes() != whole.read_bytes()
    assert alloop(command(killed)) == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert load(model).threshold is None


def test_the_options_of_md_have_the_defaults_of_its_records() -> None:
    """They are written out, since `alloop --help` imports no numpy."""
    options = {name: x.default for name, x in signature(md).parameters.items()}
    plain = DynamicsSettings()
    assert (options["timestep"], options["every"]) == (plain.timestep, plain.stride)
    assert options["friction"] == Langevin().friction
    assert options["cell"] == Barostat().shape


@pytest.mark.parametrize("option", ["--timestep", "--friction"])
def test_options_of_md_have_the_limits_of_campaign_files(
    model: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start, out = tmp_path / "atom.xyz", tmp_path / "md.xyz"
    start.write_text("1\n\nH 0 0 0\n")
    assert alloop(["md", str(model), str(start), "--out", str(out), option, "0"]) == 2
    assert f"{option}: expected a number above 0" in capsys.readouterr().err


def test_a_single_atom_walks_nowhere(model: Path, tmp_path: Path) -> None:
    start, out = tmp_path / "atom.xyz", tmp_path / "md.xyz"
    start.write_text("1\n\nH 0 0 0\n")
    command = ["md", str(model), str(start), "--out", str(out), "--steps", "20"]
    assert alloop(command) == 0
    assert all(np.abs(frame.positions).max() < 1e-6 for frame in read(out, ":"))


@pytest.mark.parametrize(
    ("options", "older"),
    [
        (
            ["--friction", "0.02"],
            "DynamicsSettings(kind='langevin', temperature=300.0, timestep=0.5, "
            "friction=0.02, stride=10, centre=True, guards=Guards(force=30.0, "
            "contact=0.6, bond=2.0, heat=10.0, surprise=None, back=5))",
        ),
        (
            ["--kind", "verlet", "--guards", "{bond: null}"],
            "DynamicsSettings(kind='verlet', temperature=300.0, timestep=0.5, "
            "friction=0.01, stride=10, centre=True, guards=Guards(force=30.0, "
            "contact=0.6, bond=None, heat=10.0, surprise=None, back=5))",
        ),
    ],
)
def test_a_run_that_an_older_version_began_goes_on(
    model: Path, tmp_path: Path, options: list[str], older: str
) -> None:
    start, out = tmp_path / "atom.xyz", tmp_path / "md.xyz"
    start.write_text("1\n\nH 0 0 0\n")
    command = ["md", str(model), str(start), "--out", str(out), *options]
    assert alloop([*command, "--steps", "20"]) == 0
    state = out.with_name("md.xyz.state")
    with safe_open(state, "np") as file:
        facts = json.loads(file.metadata()["alloop"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    facts["request"]["dynamics"] = older
    state.write_bytes(save(tensors, {"alloop": json.dumps(facts)}))
    assert alloop([*command, "--steps", "30", "--timestep", "0.4"]) == 2
    assert alloop([*command, "--steps", "30"]) == 0
    assert len(read(out, ":")) == 4
