"""The commands `path` and `paths`: reaction paths on a model, one or a campaign's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    Force,
    ModelOption,
    StoreOption,
    StorePath,
    load_generation,
    load_model_or_level,
    one_place,
    open_campaign,
    short_path,
)
from alloop.cli.console import (
    AsJson,
    Quiet,
    busy_line,
    print_error,
    print_json,
    print_text,
)
from alloop.cli.exits import FRUITLESS
from alloop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from alloop.core.frame import Frame
    from alloop.generation import Generation
    from alloop.jobs.path_job import PathCheck, PathImage, PathProfile

_KINDS = (".extxyz", ".xyz")
_ROW = "{:>5} {:>9} {:>11} {:>10} {:>12} {:>10}"
_HEAD = ("image", "path, Å", "energy, eV", "surprise", "limit, eV/Å", "check, eV")

End: TypeAlias = Annotated[
    str, typer.Argument(help="structure that ASE reads; `file.xyz@3` reads frame 3")
]
PathFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="extxyz file to write: the images")
]
Picture: TypeAlias = Annotated[
    Path | None, typer.Option(help="svg, png or pdf file to write: the profile")
]
Images: TypeAlias = Annotated[
    int, typer.Option(min=1, max=500, help="structures between the two ends")
]
LargestForce: TypeAlias = Annotated[
    float,
    typer.Option(
        min=1e-4, help="largest force across the path at which it has converged, eV/Å"
    ),
]
Steps: TypeAlias = Annotated[int, typer.Option(min=1, help="most steps of the search")]
NoRelax: TypeAlias = Annotated[
    bool, typer.Option("--no-relax", help="leave the two ends as they are")
]
Match: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--match",
        help="number like atoms, such as the hydrogens of CH2, as in the first "
        "structure; not for inversions",
    ),
]
Refine: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--refine",
        help="put the highest image on the saddle point, by Newton's method, and show "
        "its wavenumbers",
    ),
]
Level: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="level that checks the highest image and the ends: `gfn2-xtb`, "
        "`b3lyp/def2-svp`, its YAML file, or a YAML mapping"
    ),
]


def path(  # noqa: PLR0913 - one for each option
    first: End,
    last: End,
    store: StoreOption = None,
    model: ModelOption = None,
    level: Level = None,
    out: PathFile = None,
    picture: Picture = None,
    images: Images = 9,
    fmax: LargestForce = 0.05,
    steps: Steps = 500,
    no_relax: NoRelax = False,
    match: Match = False,
    refine: Refine = False,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Find the reaction path between two structures of the same atoms on a model.

    The ends are relaxed, and the highest image climbs to the saddle point. The limit is
    one of the largest force error on an atom; `check` is the energy at --level. Where
    the search does not converge, the exit code is 1.
    """
    from alloop.files.targets import refuse_target
    from alloop.jobs.path_job import PICTURES, path_profile
    from alloop.md.reaction_path import PathSettings

    place = one_place(store, model)
    for file, kinds in ((out, _KINDS), (picture, PICTURES)):
        if file is not None:
            refuse_target(file, kinds, force=force)
    ends = _one_frame(first), _one_frame(last)
    generation, check = _model_and_check(place, level, ends)
    settings = PathSettings(images, fmax, steps, not no_relax, match)
    with busy_line("relaxing the ends", quiet=quiet) as update:

        def observe(step: int, residual: float) -> None:
            update(f"step {step} of at most {steps}, largest force {residual:.3f} eV/Å")

        profile = path_profile(
            generation, ends, settings, check, observe, refine=refine
        )
    _write_files(profile, out, picture)
    if as_json:
        print_json(profile.facts())
    else:
        _print_profile(profile, quiet)
        for name, file in (("images", out), ("picture", picture)):
            if file is not None:
                print_text(f"{name}: {short_path(file)}")
    return 0 if profile.path.converged else FRUITLESS


def paths(  # noqa: PLR0913 - one for each option
    place: StorePath,
    level: Level = None,
    out: Annotated[
        Path | None,
        typer.Option(help="extxyz file to write: minima and saddle points"),
    ] = None,
    images: Images = 9,
    fmax: LargestForce = 0.05,
    steps: Steps = 500,
    no_relax: NoRelax = False,
    refine: Refine = False,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the reaction paths that a campaign found, on its best model.

    They are searched again between the minima that `explore: {paths: ...}` joined last.
    A path is done when none of its structures surprised and the label of the highest
    agreed. In the file `path` is the number here, `point` minimum or saddle.
    """
    from alloop.files.targets import refuse_target
    from alloop.jobs.path_job import path_profile
    from alloop.md.path_explorer import PathExplorerSettings
    from alloop.md.reaction_path import PathSettings

    if out is not None:
        refuse_target(out, _KINDS, force=force)
    campaign = open_campaign(place)
    state = campaign.history().state
    records = state.exploration.all_paths
    if not records:
        raise InputError(
            f"expected a campaign that looked for paths, {place} has found none; set "
            "`explore: {paths: {}}`"
        )
    explorer = campaign.setup.rules.explorers.get("paths")
    tolerance = getattr(explorer, "tolerance", PathExplorerSettings().tolerance)
    settings = PathSettings(images, fmax, steps, not no_relax, match=True)
    frames = [end for record in records for end in (record.lowest, record.minimum)]
    generation, check = _model_and_check(campaign.store, level, frames)
    facts, structures = [], []
    for number, record in enumerate(records):
        ends = (record.lowest, record.minimum)
        try:
            with busy_line(f"path {number}", quiet=quiet):
                profile = path_profile(generation, ends, settings, check, refine=refine)
        except InputError as error:  # the ends are one minimum on this model
            print_error(f"path {number}: {error}")
            continue
        done = record.is_done(tolerance)
        facts.append({"path": number, "done": done, **profile.facts()})
        if not as_json:
            print_text(f"path {number}, {'done' if done else 'open'}")
            print_text(_summary(profile))
        for atoms in profile.stationary_atoms():
            atoms.info["path"] = number
            structures.append(atoms)
    _write_structures(structures, out)
    if as_json:
        print_json(facts)


def _model_and_check(
    place: Path, level: str | None, ends: "Sequence[Frame]"
) -> "tuple[Generation, PathCheck | None]":
    """Return the model, which must know the ends, and the level of the check."""
    from alloop.core.batch import pack_frames
    from alloop.jobs.path_job import PathCheck

    generation, domain = load_generation(place)
    if domain is not None:
        domain.require(pack_frames(ends))
    if level is None:
        return generation, None
    return generation, PathCheck(level, load_model_or_level(level, ends)[0])


def _one_frame(source: str) -> "Frame":
    from alloop.files.frames import read_sound_frames

    structures = read_sound_frames([source])
    if len(structures) != 1:
        raise InputError(
            f"expected one structure, {source} has {len(structures)}; choose one, as "
            f"in `{source.partition('@')[0]}@0`"
        )
    return structures[0].frame


def _write_structures(structures: "list[Atoms]", out: Path | None) -> None:
    from ase.io import write

    from alloop.files.targets import replace_atomically

    if out is not None:
        with replace_atomically(out) as partial:
            write(partial, structures, format="extxyz")


def _write_files(
    profile: "PathProfile", out: Path | None, picture: Path | None
) -> None:
    from alloop.files.targets import replace_atomically
    from alloop.jobs.path_job import draw_profile

    _write_structures(list(profile.atoms()), out)
    if picture is not None:
        with replace_atomically(picture) as partial:
            draw_profile(profile, partial, picture.suffix[1:])


def _print_profile(profile: "PathProfile", quiet: bool) -> None:
    if not quiet:
        print_text(_ROW.format(*_HEAD))
        for image in profile.images:
            print_text(_ROW.format(*_cells(image)))
    print_text(_summary(profile))
    if not profile.path.converged:
        print_error(
            f"warning: not converged after {profile.path.steps} steps, a force of "
            f"{profile.path.force:.3f} eV/Å is left; give more `--steps` or `--images`"
        )
    if profile.surprising:
        print_error(
            f"warning: {profile.surprising} of {len(profile.images)} images surprise "
            "the model: label them and train on before you rely on the barrier"
        )


def _cells(image: "PathImage") -> tuple[str, ...]:
    from math import isinf, isnan

    limit = "none" if isinf(image.error_limit) else f"{image.error_limit:.3g}"
    cells = (
        f"{image.length:.3f}",
        f"{image.energy:.4f}",
        f"{image.surprise:.3g}",
        limit,
        f"{image.reference:.4f}",
    )
    numbers = (
        image.length,
        image.energy,
        image.surprise,
        image.error_limit,
        image.reference,
    )
    shown = ("–" if isnan(x) else y for x, y in zip(numbers, cells, strict=True))
    return str(image.number), *shown


def _summary(profile: "PathProfile") -> str:
    from math import isnan

    last, top = profile.images[-1], profile.top
    if not profile.has_barrier:
        return (
            "no barrier: the energy is highest at an end; reaction energy "
            f"{last.energy:.4f} eV"
        )
    text = (
        f"barrier {top.energy:.4f} eV at image {top.number}, "
        f"{top.energy - last.energy:.4f} eV from the other end; reaction energy "
        f"{last.energy:.4f} eV"
    )
    if profile.wavenumbers:
        imaginary = [f"{-x:.0f}i" for x in profile.wavenumbers if x < 0.0]
        text += f"; imaginary wavenumbers: {', '.join(imaginary) or 'none'} cm⁻¹"
    if isnan(top.reference):
        return text
    return (
        f"{text}; at {profile.level} on these structures {top.reference:.4f}, "
        f"{top.reference - last.reference:.4f} and {last.reference:.4f} eV"
    )
