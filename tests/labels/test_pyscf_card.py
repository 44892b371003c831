"""Levels on a card: what is asked of GPU4PySCF, and what is said without it.

GPU4PySCF is not run here: a copy of PySCF's own object stands for the one on the card.
"""

from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.errors import InputError
from alloop.core.levels import Level
from alloop.labels.levels import pyscf_level
from alloop.labels.pyscf import label, scf
from alloop.labels.pyscf.label import label_with_pyscf, problems
from alloop.labels.result import Refused

WATER = from_atoms(molecule("H2O"))


def level(method: str, device: str | None = "gpu", **more: Any) -> Level:
    own = {} if device is None else {"device": device}
    return pyscf_level(method, "sto-3g", **own, **more)


def test_only_levels_on_a_card_differ_from_what_they_were() -> None:
    assert level("hf", "cpu").id == level("hf", None).id
    on_card = level("hf")
    assert on_card.id != level("hf", None).id
    assert on_card.title == "HF/STO-3G (on a card)"
    with pytest.raises(InputError, match="did you mean 'device'"):
        pyscf_level("hf", "sto-3g", devise="gpu")


def test_without_the_package_one_sentence_tells_how_to_get_it() -> None:
    found = problems(level("pbe").settings, ["H", "O"])
    assert found == [scf.NO_CARD]
    assert "pip install gpu4pyscf-cuda12x" in scf.NO_CARD
    with pytest.raises(Refused, match="gpu4pyscf, which is not installed"):
        label_with_pyscf(WATER, level("pbe").settings)


@pytest.mark.parametrize("method", ["mp2", "ccsd(t)"])
def test_correlated_levels_have_no_gradient_on_a_card(method: str) -> None:
    (text,) = problems(level(method).settings, ["H", "O"])
    assert text == f"GPU4PySCF has no gradient of {method}; leave `device` out"


class CardArray(np.ndarray):
    """An array that has to be brought back, as CuPy's."""

    def get(self) -> Any:
        return np.array(self)


class OnCard:
    """A copy of PySCF's object, with what alloop asks of one on the card."""

    sent = 0

    def __init__(self, mf: Any) -> None:
        OnCard.sent += 1
        self.mf = mf.copy()

    def kernel(self, start: Any) -> None:
        self.mf.kernel(start)

    def to_cpu(self) -> Any:
        return self.mf

    def nuc_grad_method(self) -> Any:
        return CardGradient(self.mf.nuc_grad_method())


class CardGradient:
    grid_response = False

    def __init__(self, gradient: Any) -> None:
        self.gradient = gradient

    def kernel(self) -> Any:
        self.gradient.grid_response = self.grid_response
        return self.gradient.kernel().view(CardArray)


@pytest.mark.parametrize("method", ["hf", "pbe"])
def test_a_label_on_a_card_is_that_of_the_level(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """SCF and gradient are asked of the card; their result goes through all checks."""
    monkeypatch.setattr(OnCard, "sent", 0)
    monkeypatch.setattr(scf, "to_card", OnCard)
    monkeypatch.setattr(label, "card_problem", lambda _settings: None)
    monkeypatch.setattr(label, "card_version", lambda: "gpu4pyscf 1.4")
    plain = label_with_pyscf(WATER, level(method, None).settings)
    assert OnCard.sent == 0
    found = label_with_pyscf(WATER, level(method).settings)
    assert OnCard.sent == 2
    assert type(found.forces) is np.ndarray
    assert found.energy == pytest.approx(plain.energy, abs=1e-9)
    np.testing.assert_allclose(found.forces, plain.forces, atol=1e-9)
    assert found.details["card"] == "gpu4pyscf 1.4"
    assert "card" not in plain.details
