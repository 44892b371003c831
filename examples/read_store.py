"""Read a store with zarr and numpy alone, without alloop.

alloop run campaigns/toy.yaml && python examples/read_store.py runs/toy.zarr
"""

import sys

import numpy as np
import zarr


def main(path: str) -> None:
    """Print the learning curve, what labels cost, and the largest force label."""
    store = zarr.open_group(path, mode="r", zarr_format=3)

    generations = store["generations"]
    print("expensive labels   force error, meV/Å (validation frames)")
    labels, errors = generations["expensive"][:], generations["force_mae"][:]
    for count, error in zip(labels, errors, strict=True):
        print(f"{count:16d}   {1000 * error:.3f}")

    for fidelity in ("cheap", "expensive"):
        table = store[f"labels/{fidelity}"]
        good = table["status"][:] == 0
        cost = np.sum(table["cpu_seconds"][:])
        print(f"{fidelity}: {good.sum()} labels, {cost:.2f} CPU s")

    table = store["labels/expensive"]
    largest = np.abs(table["forces"][:]).max(initial=0.0)
    print(f"largest force component: {largest:.2f} {table['forces'].attrs['units']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
