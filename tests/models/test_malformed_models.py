"""Model files that somebody else made or mixed up: one sentence, exit code 2."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write as write_atoms
from safetensors.numpy import save

from alloop.campaign import Campaign
from alloop.cli.app import run_command
from alloop.config import load_campaign as load_campaign
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import AlloopError, DamagedError, InputError
from alloop.core.frame import Frame
from alloop.generation import Generation, from_bytes, load, to_bytes
from alloop.history.reader import CODEC
from alloop.models.checkpoint import (
    Checkpoint,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)
from alloop.models.network import build_network
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.scores.qresidual import fit_qresidual
from alloop.store.doctor import verify_store
from tests.conftest import write_toy

WATER = from_atoms(molecule("H2O"))
MOVES = np.random.default_rng(0).normal(0, 0.1, (6, 3, 3))
BATCH = pack_frames([Frame(WATER.numbers, WATER.positions + move) for move in MOVES])
STRANGE = (None, "x", [], {}, -1, 10**9, math.nan, 1e300, True)


def learned() -> Generation:
    small = {"channels": 4, "layers": 1, "radial": 3, "cutoff": 4.0}
    potential = LearnedPotential(build_network("painn", small), {1: -1.0, 8: -2.0})
    described = potential.predict(BATCH, descriptors=True).descriptors
    assert described is not None
    scorer = fit_qresidual(BATCH, described, BATCH, described)
    return Generation(potential, scorer, 3.0, {"generation": 1})


def pairwise() -> Generation:
    basis = PairBasis((1, 8), radial=3)
    return Generation(PairwisePotential(basis, np.ones(basis.size)), None, None, {})


@pytest.fixture(scope="module", params=[learned, pairwise])
def whole(request: pytest.FixtureRequest) -> Checkpoint:
    return checkpoint_from_bytes(to_bytes(request.param())[1])


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within settings."""
    items = tree.items() if isinstance(tree, dict) else []
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(tree: Any, path: tuple[Any, ...], value: Any = ...) -> Any:
    """The settings with one value replaced, or dropped."""
    tree = deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return tree


def used(blob: bytes) -> None:
    """What a command does with a model."""
    generation = from_bytes(blob)
    generation.predict(BATCH)
    if generation.scorer is not None:
        generation.surprise(BATCH)


def refused(checkpoint: Checkpoint) -> bool:
    """Whether the model is refused; only the errors of users may come out of it."""
    said = []
    try:
        used(checkpoint_to_bytes(checkpoint))
    except AlloopError as error:
        said = str(error).splitlines()
    assert len(said) <= 1
    return bool(said)


def test_every_setting_may_be_missing_or_anything(whole: Checkpoint) -> None:
    for path in places(whole.settings):
        optional = path[0] in ("facts", "threshold") and len(path) > 1
        gone = Checkpoint(
            whole.kind, changed(whole.settings, path), dict(whole.tensors)
        )
        refused(gone)
        if not optional and path[-1] not in ("channels", "layers", "radial", "cutoff"):
            assert refused(gone), path
        for value in STRANGE:
            settings = changed(whole.settings, path, value)
            refused(Checkpoint(whole.kind, settings, dict(whole.tensors)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("potential",), []),
        (("potential", "network"), 3),
        (("potential", "network", "channels"), 10**9),
        (("potential", "network", "channels"), "4"),
        (("potential", "network", "cutoff"), math.nan),
        (("potential", "network", "cutoff"), -4.0),
        (("potential", "network", "cutoff"), 1e9),
        (("potential", "network", "layers"), 10**9),
        (("potential", "references"), {"x": 1.0}),
        (("potential", "references"), {"1000000000": 1.0}),
        (("potential", "references"), {"1": math.nan}),
        (("potential", "scale"), None),
        (("threshold",), "high"),
        (("threshold",), math.nan),
        (("facts",), 5),
    ],
)
def test_what_makes_no_network_is_refused(path: tuple[str, ...], value: Any) -> None:
    own = checkpoint_from_bytes(to_bytes(learned())[1])
    settings = changed(own.settings, path, value)
    assert refused(Checkpoint(own.kind, settings, own.tensors))


def test_every_tensor_must_be_there_and_finite(whole: Checkpoint) -> None:
    ways: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda x: np.full(x.shape, np.nan, x.dtype) if x.dtype.kind == "f" else x[:0],
        lambda x: np.full(x.shape, np.inf, x.dtype) if x.dtype.kind == "f" else x[:0],
        lambda x: x[:-1],
        lambda x: x[None],
        lambda x: x.astype(np.complex64) if x.dtype.kind == "c" else x.astype("f2"),
    ]
    for name, array in whole.tensors.items():
        rest = {k: v for k, v in whole.tensors.items() if k != name}
        assert refused(Checkpoint(whole.kind, whole.settings, rest)), name
        for number, way in enumerate(ways):
            made = Checkpoint(whole.kind, whole.settings, {**rest, name: way(array)})
            soft = name.startswith("scorer/") and number == len(ways) - 1
            assert refused(made) or soft, (name, number)
    more = {**whole.tensors, "another": np.ones(3)}
    assert refused(Checkpoint(whole.kind, whole.settings, more))


@pytest.mark.parametrize("kind", ["egnn", "tensornet", "schnet", "pairwise", "magic"])
def test_a_model_of_another_kind_is_refused(kind: str) -> None:
    own = checkpoint_from_bytes(to_bytes(learned())[1])
    assert refused(Checkpoint(kind, own.settings, own.tensors))


@pytest.mark.parametrize(
    "header",
    [
        3,
        [],
        ["format", "version", "kind", "settings", "identity"],
        {},
        {"version": "1"},
        {"kind": 5},
        {"settings": []},
        {"identity": None},
    ],
)
def test_headers_of_other_types_are_refused(header: Any) -> None:
    usual = {
        "format": "alloop model",
        "version": 1,
        "kind": "pairwise",
        "settings": {},
        "identity": "0" * 32,
    }
    said = {**usual, **header} if header and isinstance(header, dict) else header
    blob = save({"w": np.ones(2)}, {"alloop": json.dumps(said)})
    with pytest.raises((InputError, DamagedError)):
        checkpoint_from_bytes(bytes(blob))


def test_deeply_nested_headers_are_refused() -> None:
    nested = b'{"__metadata__":' + b"[" * 100_000
    with pytest.raises(InputError):
        checkpoint_from_bytes(len(nested).to_bytes(8, "little") + nested)


def test_commands_refuse_them_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_atoms(tmp_path / "water.xyz", molecule("H2O"))
    own = checkpoint_from_bytes(to_bytes(learned())[1])
    name = min(own.tensors)
    unknown = np.full_like(own.tensors[name], np.nan)
    blobs = {
        "settings": checkpoint_to_bytes(
            Checkpoint(own.kind, {"potential": {}}, own.tensors)
        ),
        "nan": checkpoint_to_bytes(
            Checkpoint(own.kind, own.settings, {**own.tensors, name: unknown})
        ),
        "cut": checkpoint_to_bytes(own)[:-9],
    }
    for what, blob in blobs.items():
        file, out = tmp_path / f"{what}.model", tmp_path / f"{what}.xyz"
        file.write_bytes(blob)
        command = ["md", str(file), str(tmp_path / "water.xyz"), "--out", str(out)]
        assert run_command(command) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not out.exists()
        campaign = write_toy(tmp_path, potential={"kind": "file", "path": str(file)})
        with pytest.raises(InputError, match=r"potential\.path"):
            load_campaign(campaign)
    level = {"kind": "model", "path": str(tmp_path / "settings.model")}
    campaign = write_toy(tmp_path, levels={"expensive": level})
    with pytest.raises(InputError, match="cannot be used"):
        load_campaign(campaign)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished toy campaign of two generations."""
    budget = {"cheap": 26, "expensive": 10}
    file = write_toy(tmp_path_factory.mktemp("finished"), budget=budget)
    assert Campaign.from_yaml(file).run().exit_code == 0
    return file.with_name("toy.zarr")


@pytest.mark.parametrize("how", ["swapped", "copied", "another file"])
def test_a_model_under_anothers_id_is_noticed(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    store = tmp_path / "toy.zarr"
    shutil.copytree(finished, store)
    first, last = (x.model for x in Campaign.from_store(store).history().trained())
    folder, wrong = store / "models" / last, store / "models" / first
    if how == "another file":
        wrong = tmp_path / "other.zarr"  # of another store, as a restore mixes them up
        shutil.copytree(store / "models" / first, wrong)
    kept = tmp_path / "kept"
    folder.rename(kept)
    shutil.copytree(wrong, folder)
    if how == "swapped":
        shutil.rmtree(store / "models" / first)
        kept.rename(store / "models" / first)
    found = [str(finding) for finding in verify_store(store, CODEC)]
    assert len(found) == (2 if how == "swapped" else 1)
    assert any(f"got model {first}" in line for line in found)
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    more = write_toy(tmp_path, budget={"cheap": 36, "expensive": 14})
    for command in (
        ["run", str(more), "--quiet"],
        ["resume", str(store), "--quiet"],
        ["export", str(store), "--model", str(tmp_path / "out.model"), "--at", "2"],
    ):
        assert run_command(command) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out.model").exists()
    after = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    ours = {p for p in before if "lock" not in p.name}
    assert {p: after[p] for p in ours} == {p: before[p] for p in ours}


def test_a_whole_model_still_loads(finished: Path, tmp_path: Path) -> None:
    file = Campaign.from_store(finished).export_model(tmp_path / "m.model", 2)
    assert load(file).facts["generation"] == 2
    assert verify_store(finished, CODEC) == []
