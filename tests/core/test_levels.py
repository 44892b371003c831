"""A level is its settings."""

import pytest

from alloop.core.levels import Level, make_level

SETTINGS = {"method": "ccsd(t)", "basis": "cc-pvdz", "conv_tol": 1e-9}


def test_the_id_is_the_same_in_every_process_and_version():
    """Stores and label caches are full of these ids: they must never change."""
    assert make_level("pyscf", SETTINGS).id == "cb7344918ca8561f"


def test_the_order_of_settings_does_not_count():
    turned = dict(reversed(SETTINGS.items()))
    assert make_level("pyscf", turned) == make_level("pyscf", SETTINGS)
    assert make_level("pyscf", turned).id == make_level("pyscf", SETTINGS).id


@pytest.mark.parametrize(
    "change", [{"conv_tol": 1e-8}, {"basis": "cc-pvtz"}, {"frozen": 1}]
)
def test_every_setting_counts(change):
    assert make_level("pyscf", SETTINGS | change).id != make_level("pyscf", SETTINGS).id


def test_the_program_counts():
    assert make_level("ase", SETTINGS).id != make_level("pyscf", SETTINGS).id


def test_settings_come_back_as_they_were():
    found = make_level("pyscf", SETTINGS)
    assert found.settings == SETTINGS
    assert Level(found.kind, found.text) == found


@pytest.mark.parametrize(
    ("kind", "settings", "title"),
    [
        ("pyscf", SETTINGS, "CCSD(T)/CC-PVDZ"),
        ("pyscf", SETTINGS | {"title": "gold"}, "gold"),
        ("ase", {"calculator": "ase.calculators.emt:EMT"}, "ase.calculators.emt:EMT"),
        ("toy", {"stiffness": 1.0}, "toy"),
    ],
)
def test_a_title_is_for_people(kind, settings, title):
    assert make_level(kind, settings).title == title
