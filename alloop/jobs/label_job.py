"""Jobs that label the frames of files and write a label file; they can be resumed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from alloop.core.errors import InputError
from alloop.core.levels import Level
from alloop.files.ase_files import DATABASES
from alloop.files.frames import GivenStructure
from alloop.files.targets import refuse_inside_store, refuse_target
from alloop.jobs.label_files import (
    Failed,
    failures_file,
    lists_frames,
    read_earlier_failures,
    write_labels,
)
from alloop.jobs.label_frames import LabelProgress, Outcome, label_frames
from alloop.labels.child.labeller import Limits

_ENDINGS = (".extxyz", ".xyz", *DATABASES)


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A labelling job: frames, level and output file.

    out: ends in .extxyz, .xyz or .db. cache: a folder of labels, which may be shared;
    by default a temporary one beside `out`, removed once no label is missing that
    another try may give. Several processes that run the same job share the work. force:
    replace another file at `out`.
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
        """The folder in which each label is cached as soon as it is made."""
        return self.cache or self.out.with_name(f"{self.out.name}.labels")

    def finished_failures(self, retry: bool = False) -> Failed | None:
        """Return the failures (maybe none) of a finished job, None if it is not.

        With `retry`, a job that lost labels to limits or crashes is not finished.
        Raises InputError where `out` is the result of another request.
        """
        try:
            before = read_earlier_failures(self.out, self.given, self.level, part=retry)
        except InputError:
            if not self.force:
                raise
            return None
        if (
            retry
            and before
            and any(why.failure.is_transient for why in before.values())
        ):
            return None
        return before

    def check_request(self) -> None:
        """Raise InputError if there is nothing to label or `out` cannot be used."""
        if not self.given:
            raise InputError("expected structures to label, the files hold none")
        refuse_target(self.out, _ENDINGS, taken=False)  # see `finished_failures`
        failures = failures_file(self.out)
        own = self.force or self.out.exists() or self.cache_folder.is_dir()
        own = own or lists_frames(failures, self.given)
        refuse_target(failures, (".csv",), taken=not own)
        if self.cache is not None:
            refuse_inside_store(self.cache)

    def run(self, observe: Callable[[LabelProgress], None]) -> list[Outcome]:
        """Label the frames, write the file, and return an outcome for each frame.

        observe: see `label_frames`. Raises InputError where the level cannot be used or
        `out` cannot be written, StoreError where the cache cannot; labels made so far
        stay in the cache.
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
        if self.cache is None and all(x.is_permanent for x in records):
            shutil.rmtree(self.cache_folder, ignore_errors=True)
        return records
