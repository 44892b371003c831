"""Frames of some files to a file of labels: running a job twice is resuming it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from alloop.core.errors import InputError
from alloop.core.levels import Level
from alloop.files.ase_files import DATABASES
from alloop.files.frames import GivenStructure
from alloop.files.targets import refuse_inside_store, refuse_target
from alloop.history.lost_requests import is_permanent
from alloop.jobs.label_files import (
    Failed,
    failures_file,
    read_earlier_failures,
    write_labels,
)
from alloop.jobs.label_frames import LabelProgress, Outcome, label_frames
from alloop.labels.child.labeller import Limits

_ENDINGS = (".extxyz", ".xyz", *DATABASES)


@dataclass(frozen=True, slots=True)
class LabelJob:
    """What is to be labelled, how, and where the labels go.

    out ends in .extxyz, .xyz or .db. cache: a folder of labels shared with others; by
    default one beside `out`, for as long as labels are missing. Where several processes
    run the same job at once, they share the work. force: replace what something else
    left at `out`.
    """

    given: tuple[GivenStructure, ...]
    level: Level
    out: Path
    limits: Limits = field(default_factory=Limits)
    workers: int | None = None
    cache: Path | None = None
    force: bool = False

    @property
    def cache_folder(self) -> Path:
        """Where each label goes as soon as it is made."""
        return self.cache or self.out.with_name(f"{self.out.name}.labels")

    def finished_failures(self, retry: bool = False) -> Failed | None:
        """The failures (maybe none) of a job that is done; None where it is not.

        With `retry`, a job that lost labels to limits or crashes is not done. Raises
        InputError where `out` is the answer to another question.
        """
        try:
            before = read_earlier_failures(self.out, self.given, self.level, part=retry)
        except InputError:
            if not self.force:
                raise
            return None
        if retry and before and any(why.passing for why in before.values()):
            return None
        return before

    def check_request(self) -> None:
        """InputError where there is nothing to label, or nowhere to write."""
        if not self.given:
            raise InputError("expected structures to label, the files hold none")
        refuse_target(self.out, _ENDINGS, taken=False)  # `done` looks at what is there
        failures = failures_file(self.out)
        own = self.force or self.out.exists() or self.cache_folder.is_dir()
        refuse_target(failures, (".csv",), taken=not own)
        if self.cache is not None:
            refuse_inside_store(self.cache)

    def run(self, observe: Callable[[LabelProgress], None]) -> list[Outcome]:
        """Label what has no label yet, and write the file: an outcome for each frame.

        observe: see `label_frames`. Raises InputError where the level cannot work or
        `out` cannot be written, StoreError where the cache cannot; labels are kept.
        """
        records = label_frames(
            [each.frame for each in self.given],
            self.level,
            workers=self.workers,
            limits=self.limits,
            cache=self.cache_folder,
            observe=observe,
        )
        write_labels(self.out, self.given, self.level, records)
        if self.cache is None and all(map(is_permanent, records)):
            shutil.rmtree(self.cache_folder, ignore_errors=True)
        return records
