"""MACE from a converted file, against what mace-torch said of the same weights."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alloop.campaign import Campaign
from alloop.cli.app import run_command
from alloop.config import load_campaign
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import AlloopError, InputError
from alloop.core.frame import Frame
from alloop.core.prediction_errors import prediction_errors
from alloop.core.records import Label, LabelSet, TrainingData
from alloop.labels.direct import DirectLabeller
from alloop.labels.universal import universal_level
from alloop.models.checkpoint import (
    Checkpoint,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
)
from alloop.models.network import build_network
from alloop.models.universal.converted import (
    check_description,
    identity_of,
    licence_text,
    read_converted,
)
from alloop.potentials.compiled import compiled_for
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.restore import restore_potential
from alloop.report.sections.generation_sections import tuning_section
from alloop.report.sections.methods_sections import methods_section
from alloop.report.text.formatting import milli_text
from alloop.testing.potentials import (
    check_cutoff,
    check_forces,
    check_predictions,
    check_stored,
)
from alloop.training.optimisers import free_weights, parameter_groups
from alloop.training.replay import Replay
from alloop.training.stages import Schedule, Stage, standard_stages
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.training.trainers.universal import UniversalTrainer, untrained_potential
from alloop.training.tuning_errors import pressed_frames
from tests.conftest import write_toy
from tests.models.universal.mace_reference import FOLDER, HEADS, STATES, frames
from tests.models.universal.shared import LAWS, NOTHING, scaled_labels

KINDS = ("density", "states")
DENSITY = {"path": str(FOLDER / "mace_density.alloop"), "head": "xtb"}


def settings_of(kind: str) -> dict[str, Any]:
    return {"path": str(FOLDER / f"mace_{kind}.alloop"), "head": HEADS[kind]}


def potential(kind: str, dtype: torch.dtype = torch.float64) -> LearnedPotential:
    network = build_network("mace", settings_of(kind), dtype=dtype)
    return LearnedPotential(network, network.references)


def batch_of(kind: str, start: int = 0, stop: int = 25) -> Any:
    return pack_frames([from_atoms(x, *STATES[kind]) for x in frames()[start:stop]])


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_what_mace_torch_says(kind: str) -> None:
    theirs = np.load(FOLDER / f"mace_{kind}.npz")
    molecules, cells = batch_of(kind, 0, 20), batch_of(kind, 20, 25)
    own = potential(kind)
    said = [own.predict(x, descriptors=True) for x in (molecules, cells)]
    energies = np.concatenate([x.energies for x in said])
    forces = np.concatenate([x.forces for x in said])
    np.testing.assert_allclose(energies, theirs["energies"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(forces, theirs["forces"], rtol=0, atol=1e-5)
    assert said[1].stress is not None
    np.testing.assert_allclose(said[1].stress, theirs["stress"], rtol=0, atol=1e-6)
    assert np.abs(theirs["forces"]).max() > 1.0
    if "descriptors" in theirs:
        own_rows = np.concatenate([x.descriptors for x in said])  # type: ignore[misc]
        np.testing.assert_allclose(own_rows, theirs["descriptors"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_laws_hold(kind: str) -> None:
    own = potential(kind)
    some = [from_atoms(frames()[n], *STATES[kind]) for n in (0, 3, 5)]
    check_predictions(own, some)
    check_stored(own, some)
    check_cutoff(own, some, cutoff=own.cutoff, tolerance=1e-7)
    for law in (check_forces, *LAWS):
        law(own, some, tolerance=1e-6)


def test_charge_and_spin_count_where_the_model_reads_them() -> None:
    own = potential("states")
    water = frames()[0]
    states = [from_atoms(water, *state) for state in ((0, 0), (-1, 1), (1, 1), (0, 2))]
    energies = own.predict(pack_frames(states)).energies
    assert len({round(float(e), 6) for e in energies}) == 4


def test_edges_beyond_the_cutoff_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As they are where there are many."""
    own, batch = potential("density"), batch_of("density", 3, 6)
    said = own.predict(batch)
    monkeypatch.setattr("alloop.models.universal.converted_network._CROWDED", 1)
    again = own.predict(batch)
    np.testing.assert_allclose(again.forces, said.forces, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_md_runs_compiled_and_in_batches() -> None:
    own = potential("density", torch.float32)
    batch = pack_frames([from_atoms(frames()[0])] * 4)
    compiled, why = compiled_for(own, batch)
    assert why is None
    said, plain = compiled.predict(batch), own.predict(batch)
    np.testing.assert_allclose(said.forces, plain.forces, rtol=0, atol=1e-4)


# --- settings and files --------------------------------------------------------------


def test_a_head_must_be_named() -> None:
    with pytest.raises(InputError, match=r"`head:` .*\(pbe, xtb\), got none"):
        build_network("mace", {"path": DENSITY["path"]})
    with pytest.raises(InputError, match=r"got 'omol'"):
        build_network("mace", {**DENSITY, "head": "omol"})


def test_heads_differ() -> None:
    batch = batch_of("density", 0, 3)
    said = []
    for head in ("pbe", "xtb"):
        network = build_network("mace", {**DENSITY, "head": head})
        said.append(LearnedPotential(network, network.references).predict(batch))
    assert np.abs(said[0].forces - said[1].forces).max() > 0.1


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("mace.model", r"run `alloop convert mace.model --out mace.alloop` once"),
        ("nowhere.alloop", r"No such file .*`alloop convert FILE.model"),
        ("", r"got none; `alloop convert FILE.model --out FILE.alloop`"),
    ],
)
def test_what_is_no_converted_file_is_a_sentence(path: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_converted(path)


def test_a_file_that_changed_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "mace.alloop"
    file.write_bytes((FOLDER / "mace_density.alloop").read_bytes())
    identity = identity_of(file)
    settings = {**DENSITY, "path": str(file), "identity": identity}
    build_network("mace", settings)
    file.write_bytes((FOLDER / "mace_states.alloop").read_bytes())
    with pytest.raises(InputError, match="its content is another now"):
        build_network("mace", settings)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    """Nor a file that says that it is none."""
    file, mark = tmp_path / "mace.alloop", tmp_path / "mark"
    file.write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % str(mark).encode())
    with pytest.raises(InputError, match="expected an alloop model file"):
        read_converted(file)
    assert not mark.exists()


def crafted(change: Any) -> Checkpoint:
    """The converted file with its description and tensors changed."""
    whole = checkpoint_from_bytes(Path(DENSITY["path"]).read_bytes())
    settings, tensors = deepcopy(whole.settings), dict(whole.tensors)
    change(settings["potential"]["network"]["model"], tensors)
    return Checkpoint(whole.kind, settings, tensors)


STRANGE = (None, "x", -1, [[9, 9, 9]])


def sentence(file: Path) -> str | None:
    """What a user is told of a file, None where it can be used."""
    settings = {"path": str(file), "head": "xtb"}
    try:
        network = build_network("mace", settings)
        LearnedPotential(network, network.references).predict(batch_of("density", 0, 1))
    except AlloopError as error:
        return str(error)
    return None


def test_crafted_descriptions_are_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mace.alloop"
    model = read_converted(DENSITY["path"]).settings
    refused = 0
    places = [("", key) for key in model] + [
        ("layers", key) for key in model["layers"][1]
    ]
    for place, key in places:
        for value in STRANGE:

            def change(
                tree: Any,
                _: Any,
                place: str = place,
                key: str = key,
                value: Any = value,
            ) -> None:
                (tree["layers"][1] if place else tree)[key] = value

            file.write_bytes(checkpoint_to_bytes(crafted(change)))
            said = sentence(file)
            refused += said is not None
            assert said is None or len(said.splitlines()) == 1
    assert refused > 80


def test_crafted_tensors_are_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mace.alloop"
    name = "layers.0.product.terms.0_2.monomials"
    for array in (
        np.full_like(crafted(lambda *_: None).tensors[name], 77),
        -np.ones_like(crafted(lambda *_: None).tensors[name]),
    ):
        file.write_bytes(
            checkpoint_to_bytes(crafted(lambda _, x, a=array: x.update({name: a})))
        )
        assert "a product of components that there are not" in str(sentence(file))
    for other in ("scale", "layers.1.interaction.mix.weights.0", "embedding.weight"):

        def drop(_: Any, tensors: Any, other: str = other) -> None:
            del tensors[other]

        file.write_bytes(checkpoint_to_bytes(crafted(drop)))
        assert "cannot be used" in str(sentence(file))
        whole = crafted(lambda *_: None).tensors[other]
        wrong = np.full_like(whole, np.nan)
        file.write_bytes(
            checkpoint_to_bytes(
                crafted(lambda _, x, o=other, w=wrong: x.update({o: w}))
            )
        )
        assert "not finite" in str(sentence(file))


def test_the_licence_stays_with_the_weights() -> None:
    own = potential("density")
    text = "ASL, which forbids commercial use"
    assert own.licence == text
    again = restore_potential(
        checkpoint_from_bytes(checkpoint_to_bytes(own.checkpoint()))
    )
    assert again.licence == text  # type: ignore[attr-defined]
    mit = read_converted(FOLDER / "mace_states.alloop").settings
    assert licence_text({"model": mit}) == "MIT"


def test_one_description_has_no_strange_degrees() -> None:
    model = deepcopy(read_converted(DENSITY["path"]).settings)
    check_description("mace", model)
    model["layers"][0]["paths"][0][0] = 9
    with pytest.raises(ValueError, match="a degree"):
        check_description("mace", model)


# --- training ------------------------------------------------------------------------


def level() -> Any:
    return universal_level("mace", **DENSITY)


def labels(count: int, seed: int, shift: float = -3.0) -> LabelSet:
    """Water and methane with the model's own labels, their forces scaled by 1.2."""
    return scaled_labels(
        potential("density"), frames()[:2], count=count, seed=seed, shift=shift
    )


def trainer(steps: int, **settings: Any) -> UniversalTrainer:
    stages = standard_stages(steps, Schedule(3e-3, batch=4, warmup=2, ema=0.8))
    return UniversalTrainer(StagedTrainer("mace", {**DENSITY, **settings}, stages))


def test_a_level_labels_as_the_calculator_would() -> None:
    theirs = np.load(FOLDER / "mace_density.npz")
    label = DirectLabeller(level()).label(from_atoms(frames()[0]))
    assert isinstance(label, Label)
    assert label.energy == pytest.approx(theirs["energies"][0], abs=1e-6)
    strange = DirectLabeller(level()).label(Frame(np.array([9, 1]), np.eye(3)[:2]))
    assert "expected elements that mace knows (H, C, N, O), got F" in str(strange)


def test_fine_tuning_beats_the_model_as_it_comes() -> None:
    taught, test = labels(12, 1), labels(12, 2)
    tuned, history = trainer(40).train(TrainingData(NOTHING, taught), None, 0)
    before = prediction_errors(
        untrained_potential("mace", DENSITY, taught).predict(test.batch), test
    )
    after = prediction_errors(tuned.predict(test.batch), test)
    assert after.force_mae < 0.7 * before.force_mae
    assert history["stages"] == ["standard"]
    names = ["as it comes", "references fitted", "start of training"]
    assert history["before/name"] == names
    seen = untrained_potential("mace", DENSITY, taught).predict(taught.batch)
    errors = prediction_errors(seen, taught)
    assert history["before/force_mae"][0] == pytest.approx(errors.force_mae, rel=1e-5)
    assert history["before/energy_mae"][1] == pytest.approx(errors.energy_mae, rel=1e-3)
    assert history["before/energy_mae"][0] > 2.0
    again = restore_potential(
        checkpoint_from_bytes(checkpoint_to_bytes(tuned.checkpoint()))
    )
    assert np.array_equal(
        again.predict(test.batch).forces, tuned.predict(test.batch).forces
    )
    more, _ = UniversalTrainer(
        StagedTrainer(
            "mace", tuned.network.settings, (Stage("again", "expensive", 2, "parent"),)
        )
    ).train(TrainingData(NOTHING, taught), tuned, 0)
    assert more.licence == tuned.licence


def test_training_does_not_begin_far_above_the_model_as_it_comes() -> None:
    taught = labels(6, 1)
    data = TrainingData(NOTHING, taught)
    own = trainer(2)
    strange = replace(own.staged, given={"expensive": dict.fromkeys((1, 6, 8), 50.0)})
    with pytest.raises(InputError, match=r"start that errs by .* eV; check the units"):
        UniversalTrainer(strange).train(data, None, 0)
    network = build_network("mace", DENSITY)
    with torch.no_grad():
        network.scale *= 30.0
    broken = LearnedPotential(network, network.references)
    stages = tuple(replace(x, start="parent") for x in own.staged.stages)
    heir = UniversalTrainer(replace(own.staged, stages=stages))
    with pytest.raises(InputError, match=r"start that errs by .* eV/Å; begin with"):
        heir.train(data, broken, 0)


def test_cheap_labels_then_expensive_ones_with_replay() -> None:
    cheap, expensive = labels(8, 3, 1.0), labels(6, 4)
    schedule = Schedule(1e-3, batch=4, warmup=2, ema=0.8)
    stages = (
        Stage("cheap", "cheap", 5, "scratch", schedule=schedule),
        Stage("fine", "expensive", 5, "parent", schedule=schedule),
    )
    own = UniversalTrainer(StagedTrainer("mace", DENSITY, stages))
    others = pack_frames([from_atoms(frames()[n]) for n in (2, 5, 6)])
    tuned, history = own.replaying(Replay(others, 0.5)).train(
        TrainingData(cheap, expensive), None, 0
    )
    assert history["stages"] == ["cheap", "fine"]
    assert set(tuned.references) == {1, 6, 7, 8}
    assert history["after/name"] == ["replayed frames", "close contacts"]
    assert history["after/force_before"] == [0.0, 0.0]
    replayed = (
        tuned.predict(others).forces - potential("density").predict(others).forces
    )
    assert history["after/force_mae"][0] == pytest.approx(
        np.abs(replayed).mean(), rel=1e-3
    )
    close = potential("density").predict(pressed_frames(expensive.batch)).forces
    assert history["after/force_size"][1] == pytest.approx(
        np.abs(close).mean(), rel=1e-3
    )
    assert history["after/force_size"][1] > 2.0 * np.abs(expensive.forces).mean()


@pytest.mark.parametrize(
    ("freeze", "fixed"),
    [("embeddings", ("embedding",)), ("body", ("embedding", "layers.0."))],
)
def test_frozen_parts_stay(freeze: str, fixed: tuple[str, ...]) -> None:
    tuned, _ = trainer(3, freeze=freeze).train(
        TrainingData(NOTHING, labels(6, 1)), None, 0
    )
    before = potential("density", torch.float32).network.state_dict()
    moved = {
        name
        for name, x in tuned.network.state_dict().items()
        if not torch.equal(x, before[name])
    }
    assert moved
    assert not any(name.startswith(fixed) for name in moved)
    free = free_weights(tuned.network)
    assert set(free) >= moved
    groups = parameter_groups(tuned.network, Schedule(layer_decay=0.5), list(free))
    assert sum(len(group["params"]) for group in groups) == len(free)


# --- commands ------------------------------------------------------------------------


def test_conversion_without_the_package_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "alloop.models.universal.mace_conversion.importlib.util.find_spec",
        lambda _: None,
    )
    source, out = tmp_path / "MACE-OFF23_small.model", tmp_path / "off.alloop"
    command = ["convert", str(source), "--out", str(out)]
    assert run_command(command) == 2
    assert "is not there" in capsys.readouterr().err
    source.write_bytes(b"x")
    assert run_command(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert "is a pickle, and opening one runs whatever code it holds" in said[0]
    assert "pip install 'alloop[mace]'" in said[1]
    assert len(said) == 2


def test_a_campaign_trains_it_and_keeps_its_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "own.alloop"
    weights.write_bytes(Path(DENSITY["path"]).read_bytes())
    chosen = {"kind": "mace", "path": "own.alloop", "head": "xtb"}
    training = {"kind": "standard", "steps": 3, "compile": False}
    setup = {"potential": chosen, "training": training, "flag": {"kind": "leverage"}}
    file = write_toy(tmp_path, **setup, budget={"cheap": 26, "expensive": 10})
    campaign = Campaign.from_yaml(file)
    assert campaign.run().exit_code == 0
    store = file.with_name("toy.zarr")
    last = Campaign.from_store(store).model()
    assert last.licence == "ASL, which forbids commercial use"
    out = tmp_path / "best.model"
    assert run_command(["export", str(store), "--model", str(out)]) == 0
    assert "licence of the weights: ASL" in capsys.readouterr().out
    history = Campaign.from_store(store).history()
    page = methods_section(history).body
    assert "under the licence ASL, which forbids commercial use" in page
    tuning = tuning_section(history)
    assert tuning is not None
    errors = history.trained()[0].history["before/force_mae"]
    assert isinstance(errors, list)
    cells = [f">{milli_text(float(str(error)))}<" for error in errors]
    assert all(cell in tuning.body for cell in cells)
    for name in ("as it comes", "start of training", "close contacts"):
        assert f">{name}<" in tuning.body
    number = str(history.trained()[0].generation)
    assert run_command(["why", str(store), number]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"in meV/Å: as it comes {milli_text(float(str(errors[0])))}," in said
    weights.write_bytes((FOLDER / "mace_states.alloop").read_bytes())
    more = {"cheap": 36, "expensive": 14}
    file = write_toy(tmp_path, **setup, budget=more)
    assert run_command(["run", str(file), "--quiet"]) == 2
    assert "potential" in capsys.readouterr().err
    weights.unlink()
    assert run_command(["status", str(store)]) == 0


def test_a_campaign_s_mistakes_are_told_before_it_runs(tmp_path: Path) -> None:
    own = {"kind": "mace", "path": DENSITY["path"]}
    for chosen, sentence in (
        ({"kind": "mace"}, r"potential\.path: expected `path:`"),
        ({"kind": "mace", "path": "x.model"}, r"run `alloop convert .*x\.model"),
        (own, r"potential\.head: expected `head:` .*pbe, xtb"),
    ):
        file = write_toy(tmp_path, potential=chosen, flag={"kind": "leverage"})
        with pytest.raises(InputError, match=sentence):
            load_campaign(file)
    chosen = {**own, "head": "pbe"}
    start = [{"molecule": "CH3Cl"}]
    file = write_toy(tmp_path, potential=chosen, start=start)
    with pytest.raises(InputError, match=r"mace knows \(H, C, N, O\), got Cl"):
        load_campaign(file)
