"""Job scripts that `alloop init --cluster` writes beside a campaign."""

import shlex

_SCRIPT = """\
#!/bin/bash
# Runs the campaign {file} as a {system} job that submits itself again until it is done.
# Submit it once, in this folder: {submit} {script}
{head}
{enter}
# The system warns before it kills; pass that on, and wait for a clean end.
trap 'kill -USR1 $alloop' USR1 TERM
{python} -m alloop run {file} --quiet &
alloop=$!
while kill -0 $alloop 2>/dev/null; do wait $alloop; done
wait $alloop; code=$?

case $code in
  0) echo "the campaign is done" ;;
  3|138)                                 # stopped in time, or warned at its very start
     {submit} {script}; code=$? ;;
  *) echo "alloop ended with $code; mend it and submit {script} again" >&2 ;;
esac
exit $code
"""
_SLURM = """\
#SBATCH --job-name={name}
#SBATCH --time=24:00:00
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2                # of the driver; labels have jobs of their own
#SBATCH --mem=8G
#SBATCH --signal=B:USR1@60               # s before the limit
#SBATCH --output={name}.%j.out
"""
_PBS = """\
#PBS -N {name}
#PBS -l walltime=24:00:00
#PBS -l select=1:ncpus=2:mem=8gb
#PBS -j oe
"""
_HEADS = {"slurm": (_SLURM, "sbatch", ""), "pbs": (_PBS, "qsub", 'cd "$PBS_O_WORKDIR"')}


def job_script(system: str, file: str, python: str) -> str:
    """Return the text of the `slurm` or `pbs` script that runs a campaign's file.

    python: the interpreter to use.
    """
    name = file.rpartition(".")[0]
    head, submit, enter = _HEADS[system]
    return _SCRIPT.format(
        system={"slurm": "Slurm", "pbs": "PBS"}[system],
        head=head.format(name=name),
        enter=enter,
        file=shlex.quote(file),
        script=script_name(system, name),
        submit=submit,
        python=shlex.quote(python),
    ).replace("\n\n\n", "\n\n")


def script_name(system: str, name: str) -> str:
    """Return the file name of the script."""
    return f"{name}.{system}.sh"
