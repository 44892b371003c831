"""The commented campaign file and the job scripts that `alloop init` writes."""

import shlex
from dataclasses import dataclass

from alloop.workers.batch_systems import BATCH_SYSTEMS


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
     {submit}; code=$? ;;
  *) echo "alloop ended with $code; fix the cause and submit {script} again" >&2 ;;
esac
exit $code
"""


def job_script(system: str, file: str, python: str) -> str:
    """Return the text of the script for a batch system that runs a campaign's file.

    python: the interpreter to use.
    """
    name = file.rpartition(".")[0]
    own, script = BATCH_SYSTEMS[system], script_name(system, name)
    return _SCRIPT.format(
        system=own.title,
        head=own.head.format(name=name),
        enter=own.enter,
        file=shlex.quote(file),
        script=script,
        submit=own.submit.format(script=script),
        python=shlex.quote(python),
    ).replace("\n\n\n", "\n\n")


def script_name(system: str, name: str) -> str:
    """Return the file name of the script."""
    return f"{name}.{system}.sh"
