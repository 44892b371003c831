"""Small MACE models, and what mace-torch says of them, for tests without mace-torch.

`python tests/models/universal/mace_reference.py`, where `alloop[mace,xtb]` is
installed, makes the files `mace_*.alloop` and `mace_*.npz` beside this one again: a
model of density blocks with two heads, whose first was trained by mace-torch on 40
GFN2-xTB labels, and one of nonlinear blocks that reads charge and spin.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.records import Label
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name

FOLDER = Path(__file__).parent
MOLECULES = (
    *("H2O", "CH4", "NH3", "CH3CH2OH", "C6H6", "HCN", "H2CO", "CH3CHO", "C2H6", "C2H4"),
    *("C2H2", "CO2", "N2", "CH3CONH2", "CH3OH", "HCOOH", "C4H4O", "C5H5N", "CH3CN"),
    "H2",
)
HEADS = {"density": "xtb", "states": "b"}  # those that the arrays are of
STATES = {"density": (0, 0), "states": (-1, 1)}  # charge and spin, 2S


def frames() -> list[Atoms]:
    """20 molecules and 5 cells, moved a little."""
    rng = np.random.default_rng(0)
    cells = [
        bulk("C", "diamond", 3.6, cubic=True),
        molecule("H2O", cell=[4.0, 4.5, 5.0], pbc=True),
        Atoms(
            "CO",
            [[0, 0, 0], [1.2, 0.1, 0.2]],
            cell=[[3.5, 0, 0], [0.7, 3.3, 0], [0.2, 0.5, 3.9]],
            pbc=True,
        ),
        Atoms("N2", [[0, 0, 0], [1.1, 0, 0]], cell=[3, 3, 3], pbc=True),
        bulk("C", "diamond", 3.6),
    ]
    made = [*map(molecule, MOLECULES), *cells]
    for atoms in made:
        moved = atoms.positions + rng.normal(0.0, 0.05, atoms.positions.shape)
        atoms.positions = np.round(moved, 8)
    return made


def small_mace(**changes: Any) -> Any:
    """A ScaleShiftMACE of H, C, N and O with random weights, in float64."""
    import mace  # noqa: F401 - before e3nn, which it prepares
    import torch
    from e3nn import o3
    from mace import modules

    torch.manual_seed(0)
    heads = changes.get("heads") or ["Default"]
    energies = np.random.default_rng(1).normal(-10.0, 3.0, (len(heads), 4))
    settings: dict[str, Any] = {
        "r_max": 4.5,
        "num_bessel": 6,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "num_interactions": 2,
        "num_elements": 4,
        "hidden_irreps": o3.Irreps("4x0e + 4x1o"),
        "MLP_irreps": o3.Irreps("4x0e"),
        "gate": torch.nn.functional.silu,
        "atomic_energies": energies if len(heads) > 1 else energies[0],
        "avg_num_neighbors": 6.0,
        "atomic_numbers": [1, 6, 7, 8],
        "correlation": 2,
        "atomic_inter_scale": [0.7] * len(heads) if len(heads) > 1 else 0.7,
        "atomic_inter_shift": [0.1] * len(heads) if len(heads) > 1 else 0.1,
        "radial_MLP": [8, 8],
        **changes,
    }
    blocks = modules.interaction_classes
    for key, usual in (
        ("interaction_cls_first", "RealAgnosticResidualInteractionBlock"),
        ("interaction_cls", "RealAgnosticResidualInteractionBlock"),
    ):
        settings[key] = blocks[settings.get(key, usual)]
    usual_type = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return modules.ScaleShiftMACE(**settings)
    finally:
        torch.set_default_dtype(usual_type)


def density_model() -> Any:
    """Two heads, transformed distances, repulsion; blocks as in MP-0b and MPA-0."""
    return small_mace(
        heads=["pbe", "xtb"],
        interaction_cls_first="RealAgnosticDensityInteractionBlock",
        interaction_cls="RealAgnosticDensityResidualInteractionBlock",
        distance_transform="Agnesi",
        pair_repulsion=True,
    )


def states_model() -> Any:
    """Charge and spin, nonlinear blocks and biased readouts, as in OMOL-0."""
    from e3nn import o3
    from mace.modules.blocks import NonLinearBiasReadoutBlock

    specs = {
        "total_charge": {
            "type": "categorical",
            "per": "graph",
            "emb_dim": 4,
            "num_classes": 20,
            "offset": 10,
        },
        "total_spin": {
            "type": "continuous",
            "per": "graph",
            "in_dim": 1,
            "emb_dim": 3,
        },
    }
    block = "RealAgnosticResidualNonLinearInteractionBlock"
    return small_mace(
        heads=["a", "b"],
        interaction_cls_first=block,
        interaction_cls=block,
        max_ell=1,
        correlation=3,
        hidden_irreps=o3.Irreps("4x0e + 4x1o"),
        edge_irreps=o3.Irreps("3x0e + 3x1o"),
        apply_cutoff=False,
        use_agnostic_product=True,
        embedding_specs=specs,
        use_embedding_readout=True,
        readout_cls=NonLinearBiasReadoutBlock,
    )


def calculator(model: Any, head: str) -> Any:
    """The package's own calculator, in float64."""
    from mace.calculators import MACECalculator

    named = {"head": head} if len(model.heads) > 1 else {}
    return MACECalculator(
        models=[model], device="cpu", default_dtype="float64", **named
    )


def predictions(model: Any, head: str, state: tuple[int, int]) -> dict[str, Any]:
    """What mace-torch says of the frames; descriptors where charge is not read."""
    own = calculator(model, head)
    said: dict[str, list[Any]] = {"energies": [], "forces": [], "stress": []}
    said["descriptors"] = []
    for atoms in frames():
        atoms.info |= {"charge": state[0], "spin": state[1] + 1}
        own.reset()
        atoms.calc = own
        said["energies"].append(atoms.get_potential_energy())
        said["forces"].append(atoms.get_forces())
        if atoms.pbc.all():
            said["stress"].append(atoms.get_stress())
        if not hasattr(model, "joint_embedding"):
            said["descriptors"].append(own.get_descriptors(atoms))
    return {
        "energies": np.array(said["energies"]),
        "forces": np.concatenate(said["forces"]),
        "stress": np.array(said["stress"]),
        **(
            {"descriptors": np.concatenate(said["descriptors"])}
            if said["descriptors"]
            else {}
        ),
    }


def labelled(count: int, seed: int) -> list[tuple[Atoms, Label]]:
    """Moved molecules with GFN2-xTB labels."""
    rng = np.random.default_rng(seed)
    labeller = DirectLabeller(level_from_name("gfn2-xtb"))
    made = []
    for number in range(count):
        atoms = molecule(MOLECULES[number % len(MOLECULES)])
        atoms.positions += rng.normal(0.0, 0.08, atoms.positions.shape)
        label = labeller.label(from_atoms(atoms))
        assert isinstance(label, Label), label
        made.append((atoms, label))
    return made


def train(model: Any, labels: Sequence[tuple[Atoms, Label]], head: str) -> float:
    """Train one head on forces and energies by Adam; return the force MAE, eV/Å."""
    import torch
    from mace.data import AtomicData, config_from_atoms
    from mace.data.utils import KeySpecification
    from mace.tools import AtomicNumberTable
    from mace.tools.torch_geometric.dataloader import DataLoader

    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of the rows too
    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    keys = KeySpecification({"energy": "REF_energy"}, {"forces": "REF_forces"})
    counts = np.array(
        [[np.sum(a.numbers == z) for z in table.zs] for a, _ in labels], float
    )
    energies = np.array([label.energy for _, label in labels])
    atomic, *_ = np.linalg.lstsq(counts, energies, rcond=None)
    number = model.heads.index(head)
    model.atomic_energies_fn.atomic_energies[number] = torch.as_tensor(atomic)
    rows = []
    for atoms, label in labels:
        atoms.info["REF_energy"] = label.energy
        atoms.arrays["REF_forces"] = label.forces
        config = config_from_atoms(atoms, keys, head_name=head)
        rows.append(
            AtomicData.from_config(config, table, cutoff=4.5, heads=model.heads)
        )
    loader = DataLoader(rows, batch_size=10, shuffle=True, drop_last=False)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    epochs, errors = 200, [0.0]
    for epoch in range(epochs):
        errors = []
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1.0 - epoch / epochs)
        for batch in loader:
            out = model(batch.to_dict(), training=True)
            off = (out["energy"] - batch.energy) / (batch.ptr[1:] - batch.ptr[:-1])
            wrong = out["forces"] - batch.forces
            loss = (wrong**2).mean() + 10.0 * (off**2).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            errors.append(float(wrong.detach().abs().mean()))
    torch.set_default_dtype(usual)
    return float(np.mean(errors))


def write(name: str, model: Any) -> None:
    """Write the converted file and the arrays of one model."""
    import torch

    from alloop.jobs.convert_job import convert_model

    with tempfile.TemporaryDirectory() as folder:
        pickle = Path(folder, f"{name}.model")
        torch.save(model, pickle)
        licence = "ASL" if name == "density" else "MIT"
        convert_model(pickle, FOLDER / f"mace_{name}.alloop", licence, force=True)
    said = predictions(model, HEADS[name], STATES[name])
    np.savez_compressed(FOLDER / f"mace_{name}.npz", **said)


def main() -> None:
    """Make the files of both models."""
    density = density_model()
    error = train(density, labelled(40, 1), "xtb")
    sys.stdout.write(f"force MAE after training: {error:.3f} eV/Å\n")
    write("density", density)
    write("states", states_model())


if __name__ == "__main__":
    main()
