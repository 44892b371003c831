"""The command `refine`: a model made fit for frames unlike its training set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli.campaign_paths import Force, short_path
from alloop.cli.console import print_text
from alloop.cli.diagnose_command import is_campaign, load_with_training
from alloop.core.errors import InputError

if TYPE_CHECKING:
    from alloop.generation import Generation
    from alloop.jobs.training_set import KnownFrames


def refine(
    model: Annotated[
        Path, typer.Argument(help="model file, store, or YAML file of a campaign")
    ],
    frames: Annotated[
        str,
        typer.Argument(help="file that ASE reads; `file.xyz@0:10` reads frames 0 to 9"),
    ],
    out: Annotated[Path, typer.Option(help="model file to write")],
    radius: Annotated[
        str | None,
        typer.Option(
            help="radius of the network, Å, or `auto`: that at which the frames' "
            "graphs look most like those of the training"
        ),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option(
            help="file of the frames that the model was trained on  [default: those "
            "of the store]"
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Refine a model for frames of one system, without expensive labels.

    With --radius the network ends at another distance, its weights unchanged. Nothing
    is written where the model stays as it is.
    """
    from alloop.files.targets import MODELS, refuse_target
    from alloop.jobs.training_set import file_frames

    refuse_target(out, MODELS, force=force)
    if radius is None:
        raise InputError("expected how to refine the model: give `--radius auto`")
    needed = radius == "auto"
    known: KnownFrames | None = None
    if needed or training is not None or is_campaign(model):
        found, known = load_with_training(model, training)
    else:
        from alloop.generation import load

        found = load(model)
    given = file_frames([frames])
    refined = (
        _chosen_radius(found, given, known)
        if known is not None and needed
        else _given_radius(found, radius, given, known)
    )
    if refined is None:
        print_text("nothing written")
        return
    _write_model(refined, out)


def _chosen_radius(
    model: "Generation", frames: "KnownFrames", training: "KnownFrames"
) -> "Generation | None":
    from alloop.jobs.refine_job import refine_radius

    found = refine_radius(model, frames, training)
    choice = found.choice
    print_text(f"{'radius, Å':>10} {'distance':>10}")
    for each, distance in choice.distances.items():
        mark = "  trained" if each == choice.trained else ""
        print_text(f"{each:>10.3g} {distance:>10.3g}{mark}")
    verb = "becomes" if choice.changed else "stays"
    print_text(f"the radius {verb} {choice.radius:.3g} Å: {choice.why}")
    return found.generation


def _given_radius(
    model: "Generation",
    radius: str,
    frames: "KnownFrames",
    training: "KnownFrames | None",
) -> "Generation":
    from alloop.jobs.refine_job import fixed_radius

    try:
        value = float(radius)
    except ValueError as error:
        raise InputError(
            f"expected `auto` or a radius in Å for `--radius`, got `{radius}`"
        ) from error
    return fixed_radius(model, value, frames, training)


def _write_model(refined: "Generation", out: Path) -> None:
    from alloop.files.targets import replace_atomically
    from alloop.generation import to_bytes

    blob = to_bytes(refined)[1]
    with replace_atomically(out) as partial:
        partial.write_bytes(blob)
    if refined.scorer is None:
        print_text(
            "the model cannot tell its surprise: that takes its training frames "
            "(`--training FILE`)"
        )
    print_text(f"model: {short_path(out)}")
