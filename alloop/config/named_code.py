"""The code, shell lines and scheduler named in a configuration."""

from collections.abc import Iterator

from alloop.config.clusters import Address, Pbs, Slurm
from alloop.config.setup import Setup
from alloop.labels.named_code import named_code


def code_named(setup: Setup) -> list[str]:
    """Return each key that names something that a run would execute, with its value.

    The author of the configuration decides what is executed; a store from elsewhere
    contains its own configuration.
    """
    levels = ((f"levels.{name}", named_code(x)) for name, x in setup.levels.items())
    return [f"{key}: {code}" for key, code in (*levels, *_of_cluster(setup)) if code]


def _of_cluster(setup: Setup) -> Iterator[tuple[str, str | None]]:
    match setup.plan.cluster:
        case Address(address=address):
            yield "cluster.address", address
        case (
            Slurm(directives=options, prologue=lines)
            | Pbs(directives=options, prologue=lines)
        ):
            yield "cluster.directives", " | ".join(options)
            yield "cluster.prologue", " | ".join(lines)
