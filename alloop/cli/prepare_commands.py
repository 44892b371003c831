"""The commands `init`, `check`, `plan` and `schema`, used before a campaign runs.

`init` writes a commented campaign file and job scripts, whose texts are here too.
"""

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from alloop.cli.campaign_paths import existing_path, short_path
from alloop.cli.console import (
    AsJson,
    busy_line,
    output_console,
    print_error,
    print_json,
    print_text,
)
from alloop.cli.label_commands import spin_option
from alloop.core.errors import InputError
from alloop.core.text import plural
from alloop.workers.batch_systems import BATCH_SYSTEMS

if TYPE_CHECKING:
    from alloop.config import Setup

    BatchKind: TypeAlias = str
else:
    BatchKind = Literal[tuple(BATCH_SYSTEMS)]
File = Annotated[Path, typer.Argument(help="YAML file of a campaign")]


@dataclass(frozen=True, slots=True)
class Beginning:
    """The molecule and the levels of a new campaign, each as a line of YAML."""

    start: str
    cheap: str
    expensive: str


EXAMPLES = {
    "water": Beginning(
        "{molecule: H2O}",
        "{kind: pyscf, method: hf, basis: sto-3g}",
        "{kind: pyscf, method: ccsd(t), basis: cc-pvdz}",
    ),
    "methanol": Beginning(
        "{molecule: methanol}",
        "{kind: pyscf, method: hf, basis: sto-3g}",
        "{kind: pyscf, method: ccsd, basis: cc-pvdz}",
    ),
    "toy": Beginning(
        "{molecule: H2O}",
        "{kind: toy, stiffness: 0.95, stretch: 0.01}",
        "{kind: toy}",
    ),
}


Name: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        help="name of the campaign  [default: that of the structure file, or campaign]"
    ),
]
ExampleName: TypeAlias = Annotated[
    Literal["water", "methanol", "toy"],
    typer.Option(help="example to start from; toy needs no quantum chemistry"),
]
StartFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--from", help="file with the structures to start from, of any ASE format"
    ),
]
CheapLevel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="cheap level, such as `b3lyp/def2-svp`  [default: the example's]"
    ),
]
ExpensiveLevel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="expensive level, such as `ccsd(t)/cc-pvdz`  [default: the example's]"
    ),
]
Charge: TypeAlias = Annotated[
    int | None,
    typer.Option(help="charge, e, with --from  [default: the file's, or 0]"),
]
Spin: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, help="2S, with --from  [default: the file's, or 0]"),
]
Multiplicity: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="2S + 1, in place of --spin")
]
BatchSystem: TypeAlias = Annotated[
    BatchKind | None,
    typer.Option(help="also write a job script for this batch system"),
]


def init(  # noqa: PLR0913 - one for each option
    name: Name = None,
    example: ExampleName = "water",
    source: StartFile = None,
    cheap: CheapLevel = None,
    expensive: ExpensiveLevel = None,
    charge: Charge = None,
    spin: Spin = None,
    multiplicity: Multiplicity = None,
    cluster: BatchSystem = None,
) -> None:
    """Write a commented campaign file, NAME.yaml, for an example or your molecule."""
    from alloop.config import parse_campaign

    unpaired = spin_option(spin, multiplicity)
    if source is None and (charge, unpaired) != (None, None):
        raise InputError(
            "expected --from FILE beside --charge, --spin or --multiplicity, got none; "
            "name the file of the structure"
        )
    file = _campaign_file(name or ("campaign" if source is None else source.stem))
    default = EXAMPLES[example]
    start = "" if source is None else _start(source, charge, unpaired)
    beginning = Beginning(
        start=start or default.start,
        cheap=_level_text(cheap) or default.cheap,
        expensive=_level_text(expensive) or default.expensive,
    )
    if beginning != default:
        parse_campaign(campaign_template(file.stem, beginning), "", str(file))
    _write_campaign(file, beginning, cluster)


def _campaign_file(name: str) -> Path:
    """Return the file of a campaign; raise InputError for a name that cannot be one."""
    file = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if not re.fullmatch(r"[\w.][\w.-]*", file.stem):
        raise InputError(
            "expected a name of letters, digits, `.`, `_` and `-`, without `-` at its "
            f"beginning, got `{file.stem}`"
        )
    return file


def _write_campaign(file: Path, beginning: Beginning, cluster: str | None) -> None:
    """Write the campaign file, and a job script if there is a batch system."""
    texts = {file: campaign_template(file.stem, beginning, cluster)}
    script = None if cluster is None else Path(script_name(cluster, file.stem))
    if cluster is not None and script is not None:
        texts[script] = job_script(cluster, file.name, sys.executable)
    _write_new_files(texts)
    print_text(f"wrote {file}; next: alloop check {quote(str(file))}")
    if script is not None:
        print_text(
            f"wrote {script}; submit it once, it submits itself again until the end"
        )


def _start(source: Path, charge: int | None, spin: int | None) -> str:
    """Return the line of YAML for structures of a file."""
    state = {"charge": charge, "spin": spin}
    stated = {key: value for key, value in state.items() if value is not None}
    values = {"file": json.dumps(str(source), ensure_ascii=False), **stated}
    return f"{{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"


def _level_text(level: str | None) -> str:
    """Return the YAML of a short name, a path or a mapping; "" for None."""
    text = (level or "").strip()
    return text if not text or text.startswith("{") else json.dumps(text)


def _write_new_files(texts: dict[Path, str]) -> None:
    """Write new files, each whole; after a kill some may be there already."""
    from alloop.files.targets import replace_atomically

    there = [file for file in texts if os.path.lexists(file)]
    if len(there) < len(texts):
        there = [x for x in there if not x.is_file() or x.read_text() != texts[x]]
    for file in there:
        raise InputError(
            f"expected a new file name, {file} exists already; choose another name"
        )
    for file, text in texts.items():
        with replace_atomically(file) as partial:
            partial.write_text(text, encoding="utf-8")


def check(file: File, as_json: AsJson = False) -> int:
    """Find all mistakes in a campaign file without running anything.

    Writes no files, and runs no code that the file names.
    """
    if as_json:
        return _check_for_scripts(file)
    from alloop.labels.programs import outside_code
    from alloop.report.text.fitting_table import FittingTable

    setup = _checked_setup(file)
    for warning in setup.warnings:
        print_error(f"warning: {warning}")
    for name, level in setup.levels.items():
        if code := outside_code(level):
            print_text(
                f"levels.{name}: {code} is not checked here; only `alloop run` "
                "imports it"
            )
    table = FittingTable("", "", show_header=False, box=None)
    for row in _summary_rows(setup):
        table.add_row(*row)
    print_text(table)
    print_text(f"{file} is ok")
    return 0


def _check_for_scripts(file: Path) -> int:
    """Print mistakes, warnings and the summary of the campaign, as JSON."""
    from alloop.config import ConfigError

    try:
        setup = _checked_setup(file)
    except ConfigError as error:
        mistakes = [
            {"key": problem.path, "text": problem.text} for problem in error.problems
        ]
        print_json({"ok": False, "mistakes": mistakes, "warnings": []})
        return error.exit_code
    values = {"ok": True, "mistakes": [], "warnings": list(setup.warnings)}
    print_json({**values, "campaign": dict(_summary_rows(setup))})
    return 0


def plan(
    file: File,
    measure: Annotated[
        bool,
        typer.Option(
            help="make one label of each molecule of unknown cost, unless it takes "
            "long, and a few steps of MD and training"
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Estimate the labels, CPU time and storage of a campaign."""
    from alloop.planning.plan_table import plan_facts, plan_table

    setup = _checked_setup(file)
    if as_json:
        print_json(plan_facts(setup, measure))
        return
    with output_console().status("reading known costs") as status:
        parts = list(plan_table(setup, measure, status.update))
    for part in parts:
        print_text(part)


def schema() -> None:
    """Print the JSON schema of campaign files, for editors."""
    from alloop.config.load import campaign_schema as campaign_schema

    print_text(json.dumps(campaign_schema(), indent=1))


def _checked_setup(file: Path) -> "Setup":
    """Return the setup, after comparison with the store if there is one."""
    from alloop.config import load_campaign

    with busy_line(f"checking {file}"):
        setup = load_campaign(existing_path(file))
    setup.refuse_other_store(short_path(setup.store))
    return setup


def _frames_text(setup: "Setup") -> str:
    count = 0 if setup.replay is None else len(setup.replay)
    share = setup.plan.training.replay if setup.plan.training else None
    return plural(count, "frame") + (
        f", {share.share:.0%} of the loss" if share else ""
    )


def _examination_text(setup: "Setup") -> str:
    from alloop.planning.plan_table import beyond_frames

    beyond = beyond_frames(setup)
    frames = plural(setup.rules.examining.frames, "frame")
    return f"{frames}, {beyond} beyond MD" if beyond else frames


def _summary_rows(setup: "Setup") -> list[tuple[str, str]]:
    rules = setup.rules
    levels = [(f"{name} level", level.title) for name, level in setup.levels.items()]
    first = f"{rules.seeding.cheap} cheap, {rules.seeding.expensive} expensive"
    budget = f"{rules.budget.cheap} cheap, {rules.budget.expensive} expensive"
    if rules.split is not None:
        budget += ", or as many at the same price as pay best"
    supplied = sum(not item.test for item in setup.given)
    tests = sum(item.test for item in setup.given) or rules.seeding.validation
    exists = "exists; `alloop run` continues it" if setup.store.exists() else "new"
    return [
        (
            "molecules",
            ", ".join(
                f"{name} (charge {frame.charge}, multiplicity {frame.spin + 1})"
                for name, frame in zip(setup.molecules, setup.start, strict=True)
            ),
        ),
        *levels,
        ("budget", budget),
        (
            "first labels",
            first,
        ),
        *([("supplied labels", plural(supplied, "label"))] if supplied else []),
        ("validation set", plural(tests, "frame")),
        ("examination", _examination_text(setup)),
        *(
            (f"set {name}", plural(len(labels), "frame"))
            for name, labels in setup.sets.items()
        ),
        *([] if setup.replay is None else [("replayed", _frames_text(setup))]),
        ("potential", setup.plan.potential.kind),
        ("training", setup.plan.training.kind if setup.plan.training else ""),
        ("store", f"{short_path(setup.store)} ({exists})"),
    ]


_TEXT = """\
# Units: eV, Å, fs, K. `alloop check` finds mistakes in this file, `alloop plan` tells
# what it will cost, `alloop run` runs it; after an interruption, run it again.
name: {name}
seed: 1                               # the same seed gives the same campaign

start:                                # molecules, by name or from a file
  - {start}
  # - {{file: start.xyz, charge: 0, spin: 0}}             # spin is 2S
  # - {{labels: old.extxyz, level: cheap, energy_unit: eV, length_unit: angstrom}}

validation: {{frames: 30, examination: 20}}   # steers; MD on the model at the end
# validation: {{file: test.extxyz, energy_unit: eV, length_unit: angstrom}}

levels:
  cheap: {cheap}
  expensive: {expensive}

seeds: {{kind: modes, temperature: 500}}               # the very first frames
explore: {{kind: langevin, temperature: [500, 1000], timestep: 0.5, friction: 0.01,
          walkers: 16, steps: 500}}   # half of the walkers each; MD steps a round
potential: {potential}
flag: {{kind: leverage, quantile: 0.95, control: 0.1}}     # a tenth is random
training: {training}         # expensive labels between generations

budget: {{cheap: 200, expensive: 30}}   # labels; those of `validation:` are extra
# stop: {{target: 20, patience: 3}}     # meV/Å on the validation set; generations

{cluster}
# limits: {{walltime: 24 h}}            # of one run; a batch job's own limit counts too
store: runs/{name}.zarr               # relative to this file
"""

_LOCAL = (
    'cluster: {kind: local}                # or {kind: address, address: "tcp://..."}'
)

_JOBS = """\
cluster:                              # workers are jobs: pip install alloop[jobqueue]
  kind: {system}
  walltime: 4 h                       # of a job; queue, account, interface (ib0), ...
  labels: {{cores: 16, memory: 64 GB, jobs: {{most: 8}}}}    # a core a label
  learning: {{cores: 4, memory: 16 GB, jobs: {{most: 1}}}}   # training, MD; gpus: 1"""


def campaign_template(
    name: str, beginning: Beginning, system: str | None = None
) -> str:
    """Return the text of a campaign that is ready to run.

    system: the batch system that runs it, or None to run it here.
    """
    network = "{kind: tensor-painn, channels: 64, cutoff: 5.0}"
    toy = beginning == EXAMPLES["toy"]
    return _TEXT.format(
        name=name,
        start=beginning.start,
        cheap=beginning.cheap,
        expensive=beginning.expensive,
        potential="{kind: pairwise}" if toy else network,
        training="{kind: asteroid, every: 10}",
        cluster=_LOCAL if system is None else _JOBS.format(system=system),
    )


_SCRIPT = """\
#!/bin/bash
# Runs the campaign {file} as a {system} job that submits itself again until it is done.
# Submit it once, in this folder: {submit}
{head}
{enter}
# The system warns before it kills; pass that on, and wait for a clean end. It may do so
# before the next line but one: the trap takes the number of the run from the shell.
trap 'kill -USR1 $!' USR1 TERM
{python} -m alloop run {file} --quiet &
alloop=$!
while kill -0 $alloop 2>/dev/null; do wait $alloop; done
wait $alloop; code=$?

case $code in
  0) echo "the campaign is done" ;;
  3|138)                                 # stopped in time, or warned at its very start
     if {python} -m alloop status {file} --json |
         grep -qE '"state": "stopped"|"text": "paused: '; then
       echo "alloop paused; fix the cause and submit {script} again" >&2
     else
       {submit}; code=$?
     fi ;;
  *) echo "alloop ended with $code; fix the cause and submit {script} again" >&2 ;;
esac
exit $code
"""


def job_script(system: str, file: str, python: str) -> str:
    """Return the text of the script for a batch system that runs a campaign's file.

    python: the interpreter to use.
    """
    name = file.rpartition(".")[0]
    batch_system, script = BATCH_SYSTEMS[system], script_name(system, name)
    return _SCRIPT.format(
        system=batch_system.title,
        head=batch_system.head.format(name=name),
        enter=batch_system.enter,
        file=shlex.quote(file),
        script=script,
        submit=batch_system.submit.format(script=script),
        python=shlex.quote(python),
    ).replace("\n\n\n", "\n\n")


def script_name(system: str, name: str) -> str:
    """Return the file name of the script."""
    return f"{name}.{system}.sh"
