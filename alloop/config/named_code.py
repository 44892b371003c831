"""What a configuration has run besides alloop: code, shell lines, a scheduler."""

from collections.abc import Iterator

from alloop.config.clusters import Address, Pbs, Slurm
from alloop.config.setup import Setup
from alloop.labels.named_code import named_code


def code_named(setup: Setup) -> list[str]:
    """Each key that names what a run would execute, and what it names.

    Whoever wrote the configuration decides what that does; a store from elsewhere
    brings its configuration along.
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
