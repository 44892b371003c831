"""The command `serve`: one process holds a model and answers other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from alloop.cli.campaign_paths import existing_path
from alloop.cli.console import print_text


def serve(
    model: Annotated[Path, typer.Argument(help="model file")],
    place: Annotated[
        Path,
        typer.Option("--socket", help="UNIX socket to make, in a folder of mode 700"),
    ],
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
    """Answer calls for energies and forces until Ctrl-C, on this machine alone.

    Callers speak i-PI's protocol, or use `alloop.engines.server.call_server`.
    """
    from alloop.engines.evaluator import Evaluator, Watch
    from alloop.engines.server import ModelServer

    watch = Watch(action=beyond, file=file)
    path = existing_path(model)
    evaluator = Evaluator.of_file(path, watch=watch, outside=outside)
    with ModelServer(place, evaluator) as server:
        print_text(f"serving {path} at {place}; Ctrl-C ends it")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print_text(f"ended after {evaluator.calls} calls")
    return 0
