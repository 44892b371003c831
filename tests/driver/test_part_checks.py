"""Parts of the user's are checked when they are handed over, before a label is paid."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from alloop.campaign import Campaign
from alloop.core.errors import InputError
from alloop.driver.own_parts import OwnParts, refuse_unfit_parts
from alloop.loop.events import Opened
from alloop.scores.committee import CommitteeScorer
from alloop.scores.leverage import LeverageScorer
from alloop.selection import LargestCluster, MostSurprising, PerMolecule, RandomChoice
from tests.conftest import write_toy


class Fitted:
    def __init__(self, value: float = 1.0, short: bool = False) -> None:
        self.value, self.short = value, short

    def score(self, batch: Any, _predictions: Any) -> Any:
        return np.full(1 if self.short else len(batch), self.value)

    def arrays(self) -> dict[str, Any]:
        return {"value": np.array([self.value])}


class Constant:
    def __init__(self, fitted: Any = None) -> None:
        self.fitted = fitted

    def fit(self, *_given: Any) -> Any:
        return self.fitted

    def restore(self, *_given: Any) -> Any:
        return self.fitted


class NeedsNetwork(Constant):
    def fit(self, potential: Any, *_rest: Any) -> Any:
        return potential.network


class FitsAlone(Constant):
    def fit(self, _potential: Any) -> Any:  # type: ignore[override]
        return self.fitted


class Everything:
    def select(self, candidates: Any, *_rest: Any) -> Any:
        return tuple(range(len(candidates)))


class Raising(Everything):
    def select(self, *_given: Any) -> Any:
        raise KeyError("no such column")


class Few:
    def select(self, _candidates: Any) -> Any:
        return ()


class NaNOnceTrained(Constant):
    """A scorer whose surprise is undefined for the campaign's potential alone."""

    def fit(self, potential: Any, *_rest: Any) -> Any:
        analytic = type(potential).__name__ == "Morse"
        return Fitted(1.0 if analytic else np.nan)

    def restore(self, arrays: Any, _read_potential: Any) -> Any:
        return Fitted(float(arrays["value"][0]))


def no_arguments() -> None: ...


def returns_none(state: Any, event: Any, rules: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("role", "part", "sentence"),
    [
        ("scorer", Constant, "got the class Constant; give an instance, Constant()"),
        ("scorer", FitsAlone(), "`FitsAlone.fit` does not take the arguments"),
        ("scorer", Everything(), "Everything has no method `fit`"),
        ("scorer", Constant(None), "`score` and `arrays`, it returns None"),
        ("scorer", Constant(Fitted(np.nan)), "surprise are not all finite"),
        ("scorer", Constant(Fitted(short=True)), "expected surprise (24,), got (1,)"),
        ("selector", Everything, "got the class Everything"),
        ("selector", object(), "object has no method `select`"),
        ("selector", Few(), "`Few.select` does not take the arguments"),
        ("selector", Everything(), "selected 24 with a quota of 0"),
        (
            "selector",
            Raising(),
            "in select: KeyError: 'no such column'",
        ),
        ("selector", PerMolecule(Raising()), "in select: KeyError"),
        ("policy", no_arguments, "`no_arguments` does not take the arguments"),
        ("policy", 3, "int cannot be called"),
        ("potential", 3, "int has no method `get_trainer`"),
    ],
)
def test_an_unfit_part_is_refused_before_a_store_is_made(
    tmp_path: Path, role: str, part: Any, sentence: str
) -> None:
    file = write_toy(tmp_path)
    with pytest.raises(InputError) as caught:
        Campaign.from_yaml(file, **{role: part})
    with pytest.raises(InputError):
        Campaign.from_dict(yaml.safe_load(file.read_text()), tmp_path, **{role: part})
    assert sentence in str(caught.value)
    assert role in str(caught.value)
    assert not file.with_name("toy.zarr").exists()


def test_a_trainer_of_a_potential_is_looked_at() -> None:
    given: Any = SimpleNamespace(
        trainer=object(), get_trainer=lambda: None, restore=lambda _checkpoint: None
    )
    with pytest.raises(InputError, match=r"expected a trainer .* no method `train`"):
        refuse_unfit_parts(OwnParts(potential=given))


@pytest.mark.parametrize(
    "part",
    [
        *(MostSurprising(), LargestCluster(), RandomChoice()),
        PerMolecule(MostSurprising()),
    ],
)
def test_alloop_s_own_selectors_pass(part: Any) -> None:
    refuse_unfit_parts(OwnParts(selector=part))


@pytest.mark.parametrize(
    "part", [LeverageScorer(), CommitteeScorer(), Constant(Fitted()), NeedsNetwork()]
)
def test_scorers_pass_too_where_they_need_the_campaign_s_own_potential(
    part: Any,
) -> None:
    refuse_unfit_parts(OwnParts(scorer=part))


def test_a_scorer_that_fails_in_training_is_named(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path), scorer=NaNOnceTrained())
    finished = campaign.run().finished
    assert "NaNOnceTrained gave NaN for" in str(finished)


def test_a_policy_must_return_commands(tmp_path: Path) -> None:
    campaign = Campaign.from_yaml(write_toy(tmp_path), policy=returns_none)
    with pytest.raises(InputError, match="returns_none returned NoneType"):
        campaign.run()
    assert not list(campaign.history().of_kind(Opened))  # no half of a turn
