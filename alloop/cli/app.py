"""The command-line application: all commands, and the handling of errors."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any

import typer

from alloop.cli import (
    data_commands,
    diagnose_command,
    doctor_command,
    inspect_commands,
    label_commands,
    model_commands,
    path_command,
    prepare_commands,
    refine_command,
    run_commands,
    score_command,
    serve_command,
    structure_commands,
    watch_command,
)
from alloop.cli.console import output_error, prepare_streams, print_error
from alloop.cli.exits import RESUMABLE, exit_codes_text
from alloop.core.errors import AlloopError
from alloop.store.addresses import named_places

_INTERRUPTED = 130

app = typer.Typer(
    name="alloop",
    help="Active-learning molecular dynamics: datasets at two levels of theory and a "
    "force field with a known error. Units are eV, Å, fs and K.",
    epilog=exit_codes_text(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _with_exit_code(command: Callable[..., int | None]) -> Callable[..., None]:
    """Return the command with its return value turned into the exit code."""

    @wraps(command)
    def exiting(*arguments: Any, **options: Any) -> None:
        try:
            code = command(*arguments, **options)
        except KeyboardInterrupt:
            print_error("stopped")
            code = RESUMABLE
        raise typer.Exit(code or 0)

    return exiting


def _print_version(requested: bool) -> None:
    if requested:
        doctor_command.version()
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    pass


_COMMANDS = (
    *(
        prepare_commands.init,
        prepare_commands.check,
        prepare_commands.plan,
        prepare_commands.schema,
    ),
    *(run_commands.run, run_commands.resume, run_commands.stop),
    run_commands.notify,
    *(
        inspect_commands.status,
        inspect_commands.list_campaigns,
        inspect_commands.why,
        inspect_commands.log,
        inspect_commands.report,
        watch_command.watch,
    ),
    *(
        data_commands.export,
        data_commands.exclude,
        data_commands.copy,
        data_commands.fork,
        label_commands.label,
        label_commands.atoms,
    ),
    *(
        model_commands.train,
        model_commands.convert,
        model_commands.md,
        structure_commands.relax,
        structure_commands.vibrations,
        structure_commands.infrared,
        path_command.path,
        path_command.paths,
        serve_command.serve,
    ),
    *(score_command.score, diagnose_command.diagnose, refine_command.refine),
    *(doctor_command.doctor, doctor_command.version),
)
# A name that Python has taken.
_NAMES: dict[Callable[..., Any], str] = {inspect_commands.list_campaigns: "list"}
for _command in _COMMANDS:
    app.command(_NAMES.get(_command))(_with_exit_code(_command))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; users' mistakes become messages."""
    prepare_streams()
    code = _run_app(arguments)
    lost = output_error()
    if lost is not None:
        print_error(f"standard output cannot be written: {lost}")
    return code or (AlloopError.exit_code if lost else 0)


def _run_app(arguments: Sequence[str]) -> int:
    try:
        app(args=list(arguments), prog_name="alloop", obj=list(arguments))
    except AlloopError as error:
        print_error(named_places(str(error)))
        return error.exit_code
    except UnicodeEncodeError as error:
        print_error(f"expected text in UTF-8, got {error.object[:60]!r}")
        return AlloopError.exit_code
    except OSError as error:
        print_error(
            f"{error.filename or 'the output'} cannot be used: {error.strerror}"
        )
        return AlloopError.exit_code
    except SystemExit as end:
        # typer's own code for a Ctrl-C before the command has begun
        return RESUMABLE if end.code == _INTERRUPTED else int(end.code or 0)
    return 0
