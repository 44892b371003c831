"""The commands `relax`, `vibrations` and `infrared`: minima, wavenumbers, spectra."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import isinf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    Force,
    FramesFile,
    ModelOption,
    StoreOption,
    load_generation,
    load_model_or_level,
    one_place,
    short_path,
)
from alloop.cli.console import (
    AsJson,
    Quiet,
    busy_line,
    print_error,
    print_json,
    print_text,
    print_warning,
)
from alloop.cli.exits import FRUITLESS
from alloop.core.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from alloop.core.frame import Frame
    from alloop.generation import Generation
    from alloop.jobs.stationary_points import RelaxedStructure, VibratingStructure
    from alloop.md.anharmonic import AnharmonicVibrations
    from alloop.md.spectra import InfraredSpectrum

_XYZ, _CSV = (".extxyz", ".xyz"), (".csv",)
_PICTURES = (".svg", ".png", ".pdf")
_ROW = "{:>9} {:<12} {:>14} {:>10} {:>9} {:>10} {:>12}  {}"
_HEAD = ("structure", "formula", "energy, eV", "force", "moved, Å", "surprise")
_LEFT = 0.02  # eV/Å, beyond which a structure is no stationary point

OneLevel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="level in the place of a model, as the truth to compare with: "
        "`gfn2-xtb`, `b3lyp/def2-svp`, its YAML file, or a YAML mapping"
    ),
]
Structures: TypeAlias = Annotated[
    Path | None, typer.Option(help="extxyz file to write: the relaxed structures")
]
Table: TypeAlias = Annotated[
    Path | None, typer.Option(help="csv file to write: the numbers")
]
Steps: TypeAlias = Annotated[int, typer.Option(min=1, help="most steps")]


def relax(  # noqa: PLR0913 - one for each option
    frames: FramesFile,
    store: StoreOption = None,
    model: ModelOption = None,
    level: OneLevel = None,
    out: Structures = None,
    table: Table = None,
    fmax: Annotated[
        float, typer.Option(min=1e-6, help="largest force on an atom, eV/Å")
    ] = 0.01,
    steps: Steps = 500,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Relax structures on a model, or on a level, all in one batch.

    The limit is one of the largest force error on an atom at the minimum. Cells stay as
    they are. Where a structure does not converge, the exit code is 1.
    """
    from alloop.jobs.stationary_points import relaxed_structures

    _refuse_targets([(out, _XYZ), (table, _CSV)], force=force)
    structures = _sound_frames(frames)
    generation = _model_or_level(store, model, level, structures)
    with busy_line("relaxing", quiet=quiet):
        relaxed = relaxed_structures(generation, structures, fmax, steps)
    _write_xyz(out, [x.atoms() for x in relaxed])
    _write_csv(table, [x.facts() for x in relaxed])
    if as_json:
        print_json([x.facts() for x in relaxed])
    else:
        _print_relaxed(relaxed, quiet)
        _print_files({"structures": out, "table": table})
    return _ending(relaxed)


def vibrations(  # noqa: PLR0913 - one for each option
    frames: FramesFile,
    store: StoreOption = None,
    model: ModelOption = None,
    level: OneLevel = None,
    out: Annotated[
        Path | None,
        typer.Option(help="extxyz file to write: minima, modes as columns of atoms"),
    ] = None,
    table: Table = None,
    picture: Annotated[
        Path | None, typer.Option(help="svg, png or pdf file to write: the lines")
    ] = None,
    temperature: Annotated[float, typer.Option(min=1.0, help="K")] = 298.15,
    pressure: Annotated[float, typer.Option(min=1e-9, help="bar")] = 1.0,
    symmetry_number: Annotated[
        int | None,
        typer.Option(min=1, help="of rotations  [default: that of the minimum]"),
    ] = None,
    fmax: Annotated[
        float, typer.Option(min=1e-6, help="largest force on an atom, eV/Å")
    ] = 0.001,
    steps: Steps = 500,
    no_relax: Annotated[
        bool,
        typer.Option("--no-relax", help="leave the structures as they are: saddles"),
    ] = False,
    anharmonic: Annotated[
        bool,
        typer.Option(
            "--anharmonic",
            help="fundamentals too, by perturbation theory to second order",
        ),
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Show wavenumbers and ideal-gas functions of structures on a model.

    Structures are relaxed first; all displacements of one are one batch. Intensities
    are shown where level or model gives dipoles. Imaginary wavenumbers are negative.
    """
    from alloop.jobs.stationary_points import (
        draw_lines,
        relaxed_structures,
        vibrating_structures,
    )

    _refuse_targets([(out, _XYZ), (table, _CSV), (picture, _PICTURES)], force=force)
    structures = _sound_frames(frames)
    generation = _model_or_level(store, model, level, structures)
    with busy_line("relaxing", quiet=quiet) as update:
        relaxed = relaxed_structures(
            generation, structures, fmax, 0 if no_relax else steps
        )
        vibrating = []
        for structure in vibrating_structures(
            generation,
            relaxed,
            temperature,
            pressure,
            symmetry_number,
            anharmonic=anharmonic,
        ):
            vibrating.append(structure)
            update(f"{len(vibrating)} of {len(relaxed)} structures")
    _write_xyz(out, [x.atoms() for x in vibrating])
    _write_csv(table, [row for x in vibrating for row in x.rows()])
    _write_picture(picture, partial(draw_lines, vibrating))
    if as_json:
        print_json([x.facts() for x in vibrating])
    else:
        for structure in vibrating:
            _print_vibrating(structure)
        _print_files({"modes": out, "table": table, "picture": picture})
    _warn_of_modes(vibrating)
    if no_relax:
        _warn_of_forces(relaxed)
        return 0
    return _ending(relaxed)


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
    from alloop.jobs.infrared_job import (
        InfraredSettings,
        draw_spectrum,
        spectrum_of_dynamics,
    )

    _refuse_targets([(out, _CSV), (picture, _PICTURES)], force=force)
    structures = _sound_frames(frames)
    if len(structures) != 1:
        raise InputError(
            f"expected one structure for a spectrum, got {len(structures)}; give them "
            "one at a time"
        )
    generation = _model_or_level(store, model, None, structures)
    settings = InfraredSettings(
        temperature=temperature,
        walkers=walkers,
        length=1000.0 * picoseconds,
        width=width,
        seed=seed,
    )
    with busy_line("molecular dynamics", quiet=quiet) as update:
        spectrum = spectrum_of_dynamics(
            structures[0],
            generation.potential,
            settings,
            lambda share: update(f"molecular dynamics: {share:.0%}"),
        )
    _print_bands(spectrum)
    points = zip(spectrum.wavenumbers, spectrum.absorption, strict=True)
    names = ("wavenumber_per_cm", "absorption_km_per_mol_cm")
    _write_csv(
        out, [{k: f"{x:.6g}" for k, x in zip(names, xy, strict=True)} for xy in points]
    )
    _write_picture(picture, partial(draw_spectrum, spectrum))
    _print_files({"spectrum": out, "picture": picture})
    return 0


def _refuse_targets(
    targets: Iterable[tuple[Path | None, Sequence[str]]], *, force: bool
) -> None:
    from alloop.files.targets import refuse_target

    for file, kinds in targets:
        if file is not None:
            refuse_target(file, kinds, force=force)


def _sound_frames(source: str) -> "list[Frame]":
    from alloop.files.frames import read_sound_frames

    return [structure.frame for structure in read_sound_frames([source])]


def _model_or_level(
    store: Path | None, model: Path | None, level: str | None, frames: "list[Frame]"
) -> "Generation":
    """Return the model, which must know the frames, or the level in its place."""
    from alloop.core.batch import pack_frames
    from alloop.generation import UNKNOWN

    if level is not None:
        if store is not None or model is not None:
            raise InputError("expected a model or a level, got both; leave one out")
        return load_model_or_level(level, frames)[0]
    generation, domain = load_generation(one_place(store, model))
    if domain is None:
        print_warning(UNKNOWN)
    else:
        domain.require(pack_frames(frames))
    return generation


def _write_xyz(out: Path | None, structures: "list[Atoms]") -> None:
    if out is not None:
        from ase.io import write

        from alloop.files.targets import replace_atomically

        with replace_atomically(out) as unfinished:
            write(unfinished, structures, format="extxyz")


def _write_csv(table: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    if table is not None:
        from alloop.files.targets import replace_atomically

        with (
            replace_atomically(table) as unfinished,
            unfinished.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)


def _write_picture(picture: Path | None, draw: Callable[[Path, str], None]) -> None:
    """Write a picture by a function of the file and its format, if one is wanted."""
    if picture is not None:
        from alloop.files.targets import replace_atomically

        with replace_atomically(picture) as unfinished:
            draw(unfinished, picture.suffix[1:])


def _print_files(files: Mapping[str, Path | None]) -> None:
    for name, file in files.items():
        if file is not None:
            print_text(f"{name}: {short_path(file)}")


def _print_relaxed(relaxed: "Sequence[RelaxedStructure]", quiet: bool) -> None:
    if not quiet:
        print_text(_ROW.format(*_HEAD, "limit, eV/Å", ""))
        for x in relaxed:
            facts = x.facts()
            texts = (f"{x.energy:.4f}", f"{x.force:.4f}", f"{x.moved:.3f}")
            state = "" if x.converged else "not converged"
            trust = (_number(x.surprise), _number(x.error_limit))
            print_text(_ROW.format(x.number, facts["formula"], *texts, *trust, state))
    done = sum(x.converged for x in relaxed)
    print_text(f"{done} of {len(relaxed)} relaxed")


def _print_vibrating(structure: "VibratingStructure") -> None:
    relaxed, vibrations, gas = (
        structure.relaxed,
        structure.vibrations,
        structure.gas,
    )
    trust = (_number(relaxed.surprise), _number(relaxed.error_limit))
    print_text(
        f"structure {relaxed.number}, {relaxed.facts()['formula']}: energy "
        f"{relaxed.energy:.4f} eV, largest force {relaxed.force:.1e} eV/Å, surprise "
        f"{trust[0]}, limit {trust[1]} eV/Å"
    )
    lines, beyond = vibrations.intensities, structure.anharmonic
    for mode, wavenumber in enumerate(vibrations.modes.wavenumbers):
        line = "" if lines is None else f" {lines[mode]:>9.2f} km/mol"
        if beyond is not None:
            line += f" {beyond.fundamentals[mode]:>9.1f} cm⁻¹ anharmonic"
        print_text(f"{mode:>6} {wavenumber:>9.1f} cm⁻¹{line}")
    if beyond is not None:
        _print_resonances(beyond)
    if gas is not None:
        print_text(
            f"{vibrations.geometry}, symmetry number {gas.symmetry_number}; at "
            f"{gas.temperature:g} K and {gas.pressure:g} bar: zero-point energy "
            f"{gas.zero_point:.4f} eV, H {gas.enthalpy:.4f} eV, S "
            f"{1e3 * gas.entropy:.4f} meV/K, G {gas.gibbs:.4f} eV"
        )


def _print_resonances(anharmonic: "AnharmonicVibrations") -> None:
    for x in anharmonic.resonances:
        first, second = x.pair
        pair = f"2 x {first}" if first == second else f"{first} + {second}"
        print_text(
            f"mode {x.fundamental} is in resonance with {pair}: harmonic gap "
            f"{x.gap:.0f} cm⁻¹, coupling {x.coupling:.0f} cm⁻¹; "
            f"{anharmonic.shares[x.fundamental]:.0%} of its state are the fundamental"
        )
    print_text(
        f"anharmonic zero-point energy {anharmonic.zero_point:.4f} eV; quartic force "
        f"constants agree within {anharmonic.noise:.1f} cm⁻¹"
    )


def _print_bands(spectrum: "InfraredSpectrum") -> None:
    from alloop.jobs.infrared_job import band_positions

    places = band_positions(spectrum)
    print_text("bands, cm⁻¹: " + ", ".join(f"{place:.0f}" for place in places))
    total = spectrum.intensity(0.0, float(spectrum.wavenumbers[-1]))
    print_text(f"intensity of all: {total:.1f} km/mol")


def _number(value: float) -> str:
    return "–" if isnan(value) else "none" if isinf(value) else f"{value:.3g}"


def _warn_of_modes(structures: "Sequence[VibratingStructure]") -> None:
    for structure in structures:
        count = structure.vibrations.imaginary
        if count:
            number = structure.relaxed.number
            print_warning(
                f"structure {number} is no minimum: {count} of its modes are "
                "imaginary (negative above) and left out of the gas; displace it along "
                "them and relax again, or take it for a saddle point"
            )


def _warn_of_forces(relaxed: "Sequence[RelaxedStructure]") -> None:
    loose = [str(x.number) for x in relaxed if x.force > _LEFT]
    if loose:
        print_warning(
            f"structure {', '.join(loose)} is no stationary point, forces above "
            f"{_LEFT} eV/Å are left: wavenumbers mean little"
        )


def _ending(relaxed: "Sequence[RelaxedStructure]") -> int:
    """Warn of what did not converge and of what surprises; return the exit code."""
    surprising = [str(x.number) for x in relaxed if x.surprising]
    if surprising:
        print_warning(
            f"structure {', '.join(surprising)} surprises the model: label it and "
            "train on before you rely on it"
        )
    loose = [str(x.number) for x in relaxed if not x.converged]
    if loose:
        print_error(
            f"warning: structure {', '.join(loose)} did not converge; give more "
            "`--steps` or a larger `--fmax`"
        )
    return FRUITLESS if loose else 0
