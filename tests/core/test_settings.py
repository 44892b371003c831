"""Records of settings: their fields, and what identifies them in saved states."""

import json
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any

import pytest

from alloop.core.settings import identity, limits_of, setting, settings_of
from alloop.md.barostat import Barostat
from alloop.md.dynamics import DynamicsSettings
from alloop.md.guards import Guards
from alloop.md.integrate import Langevin, VelocityVerlet
from alloop.training.stages import Schedule, Stage


@dataclass(frozen=True, slots=True)
class Oven:
    """Settings with a unit of files, a key of files, and a field that no file sets."""

    heat: float = setting(0.5, "heat, kJ", key="energy", convert=lambda kJ: 1e3 * kJ)
    limit: float | None = setting(None, "largest heat, J", gt=0, le=9)
    serial: int = 7


def test_a_setting_is_a_field_in_the_units_of_its_record() -> None:
    assert Oven() == Oven(500.0, None, 7)
    assert list(settings_of(Oven)) == ["energy", "limit"]
    energy = settings_of(Oven)["energy"]
    assert (energy.metadata["default"], energy.metadata["description"]) == (
        0.5,
        "heat, kJ",
    )
    assert limits_of(settings_of(Oven)["limit"]) == {"gt": 0, "le": 9}


def test_a_record_with_a_new_field_keeps_its_identity() -> None:
    def oven(*more: Any) -> Any:
        return make_dataclass("Oven", [("heat", float), *more], frozen=True)

    old, new = oven(), oven(("doors", int, field(default=2)))
    assert identity(new(3.0)) == identity(old(3.0)) == {"record": "Oven", "heat": 3.0}
    assert identity(new(3.0, doors=1)) != identity(old(3.0))


def test_a_default_that_changes_can_keep_what_older_states_were_made_with() -> None:
    kept = {"default": 4, "metadata": {"implied": 2}}
    changed = make_dataclass("Oven", [("doors", int, field(**kept))], frozen=True)
    assert identity(changed()) == {"record": "Oven", "doors": 4}
    assert identity(changed(2)) == {"record": "Oven"}


@pytest.mark.parametrize(
    "other",
    [
        replace(DynamicsSettings(), temperature=301.0),
        DynamicsSettings(VelocityVerlet()),
        DynamicsSettings(Langevin(0.02)),
        DynamicsSettings(guards=Guards(volume=3.0)),
        DynamicsSettings(guards=Guards(bond=None)),
        DynamicsSettings(barostat=Barostat()),
        DynamicsSettings(barostat=Barostat(shape="anisotropic")),
    ],
)
def test_each_value_of_nested_records_counts(other: DynamicsSettings) -> None:
    texts = {json.dumps(identity(x)) for x in (DynamicsSettings(), other)}
    assert len(texts) == 2
    assert identity(other) == identity(replace(other))


def test_the_defaults_that_saved_states_leave_out_do_not_change() -> None:
    """A new default of these records needs `implied`, or older states are mistaken."""
    assert Schedule() == Schedule(
        lr=5e-3,
        batch=10,
        warmup=50,
        ema=0.99,
        clip=5.0,
        energy=0.05,
        norm="l2",
        every=100,
        patience=None,
        decay="cosine",
        floor=0.0,
        hold=0.8,
        weight_decay=0.0,
        layer_decay=1.0,
        epochs=None,
        seconds=None,
        compile="auto",
        optimiser="muon",
        stress=0.1,
    )
    stage = Stage("a", "cheap", 1)
    assert (stage.start, stage.weights, stage.labels) == (
        "previous",
        "uniform",
        "plain",
    )
    assert (stage.mix, stage.loss, stage.temperature, stage.noise) == (
        0.5,
        "labels",
        0.0,
        0.0,
    )
    assert Guards() == Guards(30.0, 0.6, 2.0, 10.0, None, 2.0, 5)
    plain = DynamicsSettings()
    assert plain.integrator == Langevin(0.01)
    assert (plain.temperature, plain.timestep, plain.stride) == (300.0, 0.5, 10)
    assert (plain.centre, plain.barostat) == (True, None)
