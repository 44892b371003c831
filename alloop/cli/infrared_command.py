"""The command `infrared`: a spectrum from MD on a model that has learned dipoles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli.campaign_paths import (
    Force,
    FramesFile,
    ModelOption,
    StoreOption,
    load_generation,
    one_place,
    short_path,
)
from alloop.cli.console import Quiet, busy_line, print_text
from alloop.core.errors import InputError
from alloop.files.targets import refuse_target, replace_atomically

if TYPE_CHECKING:
    from alloop.md.spectra import InfraredSpectrum


def infrared(  # noqa: PLR0913 - one for each option
    frames: FramesFile,
    store: StoreOption = None,
    model: ModelOption = None,
    out: Annotated[
        Path | None, typer.Option(help="csv file to write: cm⁻¹, km/mol per cm⁻¹")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="svg, png or pdf file to write: the spectrum")
    ] = None,
    temperature: Annotated[float, typer.Option(min=1.0, help="K")] = 300.0,
    picoseconds: Annotated[
        float, typer.Option(min=0.1, help="length of each trajectory")
    ] = 10.0,
    walkers: Annotated[int, typer.Option(min=1, help="trajectories")] = 32,
    width: Annotated[float, typer.Option(min=0.5, help="resolution, cm⁻¹")] = 10.0,
    seed: Annotated[int, typer.Option(help="of velocities")] = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Show the infrared spectrum of a molecule from classical MD on a model.

    The model must have learned dipoles (`training: {dipoles: true}`). Rotation and
    anharmonicity are in it, quantum effects of nuclei are not.
    """
    import numpy as np

    from alloop.core.batch import pack_frames
    from alloop.files.frames import read_sound_frames
    from alloop.jobs.infrared_job import (
        InfraredSettings,
        draw_spectrum,
        spectrum_of_dynamics,
    )

    for file, endings in ((out, (".csv",)), (picture, (".svg", ".png", ".pdf"))):
        if file is not None:
            refuse_target(file, endings, force=force)
    (structure, *others) = read_sound_frames([frames])
    if others:
        raise InputError(
            f"expected one structure for a spectrum, got {1 + len(others)}; give them "
            "one at a time"
        )
    generation, domain = load_generation(one_place(store, model))
    if domain is not None:
        domain.require(pack_frames([structure.frame]))
    settings = InfraredSettings(
        temperature=temperature,
        walkers=walkers,
        length=1000.0 * picoseconds,
        width=width,
        seed=seed,
    )
    with busy_line("molecular dynamics", quiet=quiet) as update:
        spectrum = spectrum_of_dynamics(
            structure.frame,
            generation.potential,
            settings,
            lambda share: update(f"molecular dynamics: {share:.0%}"),
        )
    _print_bands(spectrum)
    if out is not None:
        columns = np.stack([spectrum.wavenumbers, spectrum.absorption], axis=1)
        with replace_atomically(out) as partial:
            head = "wavenumber_per_cm,absorption_km_per_mol_cm"
            np.savetxt(partial, columns, "%.6g", ",", header=head, comments="")
        print_text(f"spectrum: {short_path(out)}")
    if picture is not None:
        with replace_atomically(picture) as partial:
            draw_spectrum(spectrum, partial, picture.suffix[1:])
        print_text(f"picture: {short_path(picture)}")
    return 0


def _print_bands(spectrum: "InfraredSpectrum") -> None:
    from alloop.jobs.infrared_job import band_positions

    places = band_positions(spectrum)
    print_text("bands, cm⁻¹: " + ", ".join(f"{place:.0f}" for place in places))
    total = spectrum.intensity(0.0, float(spectrum.wavenumbers[-1]))
    print_text(f"intensity of all: {total:.1f} km/mol")
