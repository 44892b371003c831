"""The command `serve`: one process holds a model and answers other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from alloop.cli.campaign_paths import existing_path
from alloop.cli.console import print_text
from alloop.core.errors import InputError

if TYPE_CHECKING:
    from alloop.engines.evaluator import Evaluator


def serve(  # noqa: PLR0913 - one for each option
    model: Annotated[Path, typer.Argument(help="model file")],
    place: Annotated[
        Path | None,
        typer.Option("--socket", help="UNIX socket to make, in a folder of mode 700"),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option(
            help="in place of it: the socket on which i-PI or ASE's "
            "SocketIOCalculator waits, a UNIX socket's name or HOST:PORT"
        ),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="file of the atoms, with --connect")
    ] = None,
    beyond: Annotated[
        Literal["ignore", "warn", "write", "stop"],
        typer.Option(
            help="what to do with frames that the model does not trust: `stop` answers "
            "with an error"
        ),
    ] = "warn",
    file: Annotated[
        Path | None, typer.Option(help="extxyz file of frames that it does not trust")
    ] = None,
    outside: Annotated[
        bool,
        typer.Option("--outside", help="accept what the model was not trained on"),
    ] = False,
) -> int:
    """Answer calls for energies and forces, from this machine alone.

    With --socket callers connect until Ctrl-C: `alloop-orca` for ORCA, or
    `alloop.engines.server.call_server`. With --connect the model drives a program that
    waits on a socket, i-PI or ASE's SocketIOCalculator, until that is done.
    """
    from alloop.engines.evaluator import Evaluator, Watch

    if (place is None) == (connect is None) or (connect is None) != (template is None):
        raise InputError(
            "expected --socket, or --connect with --template; give one of the two"
        )
    watch = Watch(action=beyond, file=file)
    path = existing_path(model)
    evaluator = Evaluator.of_file(path, watch=watch, outside=outside)
    if place is not None:
        return _serve(evaluator, place, path)
    assert connect is not None
    assert template is not None
    return _drive(evaluator, connect, existing_path(template))


def _drive(evaluator: "Evaluator", address: str, template: Path) -> int:
    from ase.io import read

    from alloop.engines.socket_driver import drive

    drive(evaluator, read(template), address)
    print_text(f"done after {evaluator.calls} calls")
    return 0


def _serve(evaluator: "Evaluator", place: Path, path: Path) -> int:
    from alloop.engines.server import ModelServer

    with ModelServer(place, evaluator) as server:
        print_text(f"serving {path} at {place}; Ctrl-C ends it")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print_text(f"ended after {evaluator.calls} calls")
    return 0
