"""A campaign's configuration, converted to the objects that the loop and pools use."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alloop.config import build
from alloop.config.checks.validate import known_kinds, validate_tree
from alloop.config.molecules import molecule_names
from alloop.config.sections.clusters import (
    Adaptive,
    Address,
    BatchSystem,
    Inline,
    Local,
    Workers,
)
from alloop.config.sections.plan import Plan
from alloop.config.starting_data import replays, same_labels
from alloop.config.yaml_text import (
    ConfigError,
    Problem,
    Tree,
    changed_keys,
    dump_yaml,
    merge_trees,
    parse_yaml,
    rename_old_keys,
)
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Fidelity, Level
from alloop.core.records import LabelSet
from alloop.labels.programs import outside_code
from alloop.loop.events import Given, Opened
from alloop.loop.rules import Rules
from alloop.models.settings import NETWORKS, is_pretrained

if TYPE_CHECKING:
    from alloop.workers.cluster_plan import BatchPlan, ClusterPlan, JobGroup
    from alloop.workers.settings import WorkerSettings


def cluster_plan(plan: Plan) -> "ClusterPlan":
    """Return the plan of the processes, scheduler or batch jobs that run the work."""
    from alloop.workers.cluster_plan import LABEL, LEARN, ClusterPlan, TlsFiles

    match plan.cluster:
        case Local(adaptive=Adaptive(minimum=low, maximum=high)):
            return ClusterPlan("local", low, adaptive=(low, high))
        case Local(workers=workers, gpus=gpus):
            return ClusterPlan("local", workers, gpus=gpus)
        case Inline():
            return ClusterPlan("inline")
        case Address(address=address, tls=tls, separate=apart, resources=asked):
            files = None if tls is None else TlsFiles(tls.ca, tls.cert, tls.key)
            return ClusterPlan(
                "address",
                address=address,
                tls=files,
                apart=apart,
                asked={LABEL: asked.labels, LEARN: asked.learning},
            )
        case BatchSystem() as jobs:
            return ClusterPlan(jobs.kind, batch=_batch_plan(jobs))


def _batch_plan(jobs: BatchSystem) -> "BatchPlan":
    """Return the plan of batch jobs.

    A label takes one core, so that many run side by side; a training takes all.
    """
    from alloop.workers.cluster_plan import LABEL, LEARN, BatchPlan

    groups = {LABEL: _job_group(jobs.labels, jobs.labels.cores)}
    if jobs.learning is not None:
        groups[LEARN] = _job_group(jobs.learning, 1)
    shared = set(BatchSystem.model_fields) - {"kind", "labels", "learning"}
    return BatchPlan(
        system=jobs.kind,
        groups=groups,
        site_names=jobs.model_dump(exclude=set(BatchSystem.model_fields)),
        **jobs.model_dump(include=shared),
    )


def _job_group(workers: Workers, tasks: int) -> "JobGroup":
    from alloop.workers.cluster_plan import JobGroup

    return JobGroup(
        cores=workers.cores,
        memory=workers.memory,
        tasks=workers.tasks or tasks,
        gpus=workers.gpus,
        minimum=workers.adaptive.minimum,
        maximum=workers.adaptive.maximum,
    )


@dataclass(frozen=True)
class Setup:
    """A campaign as its configuration describes it.

    start: a frame for each molecule; conformers: further ones, by its index. given:
    labels and validation frames that the user supplied. model, model_id: generation 0,
    if the user supplied one (model is None if the store already holds it). warnings:
    what looks wrong and is not refused. sets: the user's own sets of acceptance by
    name. replay: frames that fine-tuning goes on learning. is_checked: whether levels
    and device were found usable on this machine.
    """

    plan: Plan
    start: tuple[Frame, ...]
    levels: Mapping[Fidelity, Level]
    store: Path
    given: tuple[Given, ...] = ()
    conformers: Mapping[int, tuple[Frame, ...]] = field(default_factory=dict)
    cache: Path | None = None
    model: bytes | None = None
    model_id: str | None = None
    warnings: tuple[str, ...] = ()
    sets: Mapping[str, LabelSet] = field(default_factory=dict)
    replay: LabelSet | Batch | None = None
    is_checked: bool = False

    @classmethod
    def from_store(cls, text: str, opened: Opened, store: Path) -> "Setup":
        """Return the setup kept in a store; none of the original files are needed."""
        plan, problems = validate_tree(
            _as_it_was(parse_yaml(text, str(store)), str(store))
        )
        if plan is None or problems:
            raise ConfigError(f"the configuration in {store}", problems)
        sets = () if plan.acceptance is None else plan.acceptance.sets
        missing = [f"acceptance.sets.{x}" for x in sets if x not in opened.sets]
        if replays(plan) and opened.replay is None:
            missing.append("training.replay")
        if missing:
            text = "the store holds no such frames; leave it out"
            problems = [Problem(path, text) for path in missing]
            raise ConfigError(f"the configuration in {store}", problems)
        cache = None if plan.cache is None else Path(plan.cache)
        return cls(
            plan=build.resolve_defaults(plan),
            start=opened.start,
            conformers=opened.conformers_by_start(),
            levels=build.build_levels(plan),
            store=store,
            given=opened.given,
            cache=cache if cache is not None and cache.is_absolute() else None,
            model_id=opened.model,
            sets=opened.sets,
            replay=opened.replay if replays(plan) else None,
        )

    def with_changes(self, changes: Tree, store: Path, opened: Opened) -> "Setup":
        """Return the same campaign with some values changed, in another store.

        If `changes` select standard training, it takes as many steps as the campaign's
        own training, from the same start.
        """
        training = self.plan.training
        request = changes.get("training") or {}
        if request.get("kind") == "standard" and training is not None:
            settings = {name: getattr(training, name) for name in ("start", "last")}
            settings |= {"steps": training.total, **request}
            changes = {**changes, "training": settings}
        tree = merge_trees(parse_yaml(self.text, str(store)), changes, known_kinds())
        varied = Setup.from_store(dump_yaml(tree), opened, store)
        return replace(
            varied, cache=self.cache, model=self.model, is_checked=self.is_checked
        )

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.plan.name

    @property
    def seed(self) -> int:
        """The seed of all random streams of the campaign."""
        return self.plan.seed

    @cached_property
    def molecules(self) -> tuple[str, ...]:
        """A name for each start."""
        return molecule_names(self.start)

    @cached_property
    def rules(self) -> Rules:
        """The rules of the loop's decisions."""
        return build.build_rules(self.plan, any(label.test for label in self.given))

    @cached_property
    def worker_settings(self) -> "WorkerSettings":
        """The settings of workers."""
        return build.worker_settings(self.plan, self.levels)

    @cached_property
    def cluster(self) -> "ClusterPlan":
        """The plan of the processes, scheduler or batch jobs that run the work."""
        return cluster_plan(self.plan)

    @property
    def named_code(self) -> list[str]:
        """Each key that names something that a run would execute, with its value.

        The author of the configuration decides what is executed; a store from elsewhere
        contains its own configuration.
        """
        levels = (
            (f"levels.{name}", outside_code(x)) for name, x in self.levels.items()
        )
        return [
            f"{key}: {code}"
            for key, code in (*levels, *_cluster_code(self), *_notify_code(self))
            if code
        ]

    def refuse_other_store(self, place: str) -> None:
        """Raise InputError if the store exists and is another campaign's.

        place: the store's name in the message.
        """
        from alloop.config.starting_data import store_opening  # starting_data is late

        if not self.store.exists():
            return
        wrong = fixed_differences(self, store_opening(self.store))
        if wrong:
            raise InputError(
                f"{place} belongs to another campaign: {'; '.join(wrong)}; choose "
                "another `store:`, or restore the old values"
            )

    @cached_property
    def text(self) -> str:
        """The whole configuration as YAML, fragments merged and defaults filled in.

        Paths are relative to the campaign's file.
        """
        return dump_yaml(_kind_first(self.plan.model_dump(mode="json")))


_FURTHER_WORK = {"validation.examination"}


def changes_since(stored: str, text: str) -> tuple[str, ...]:
    """Return the dotted keys that differ from a store's configuration.

    A setting that came with a newer alloop is no change at the value with which older
    campaigns go on, but for those that ask for further work of a campaign that ended.
    """
    plan, problems = validate_tree(_as_it_was(parse_yaml(stored, "store"), "store"))
    if plan is None or problems:
        return changed_keys(stored, text)
    resolved = build.resolve_defaults(plan).model_dump(mode="json")
    changed = set(changed_keys(dump_yaml(_kind_first(resolved)), text))
    further = set(changed_keys(stored, text)) & _FURTHER_WORK
    return tuple(sorted(changed | further))


def _cluster_code(setup: Setup) -> Iterator[tuple[str, str | None]]:
    """Yield the keys of `cluster:` that name an address or shell lines."""
    match setup.plan.cluster:
        case Address(address=address):
            yield "cluster.address", address
        case BatchSystem(directives=options, prologue=lines):
            yield "cluster.directives", " | ".join(options)
            yield "cluster.prologue", " | ".join(lines)


def _notify_code(setup: Setup) -> Iterator[tuple[str, str | None]]:
    """Yield the keys of `notify:`: a shell line, and who is sent what.

    A store from elsewhere could have secrets of the environment posted anywhere.
    """
    notify = setup.plan.notify
    if notify is not None:
        for key in ("command", "webhook", "token", "apprise"):
            yield f"notify.{key}", getattr(notify, key)


def _start_ids(
    start: Sequence[Frame], conformers: Mapping[int, tuple[Frame, ...]]
) -> list[list[str]]:
    """Return the ids of each start and its conformers."""
    return [
        [frame.id for frame in (first, *conformers.get(index, ()))]
        for index, first in enumerate(start)
    ]


def fixed_differences(setup: Setup, opened: Opened) -> list[str]:
    """Return the fixed settings in which this configuration differs from a store's.

    Seed, start, levels and data that the user supplied never change for a store.
    """
    differences = []
    if setup.seed != opened.seed:
        differences.append(f"its seed is {opened.seed}, not {setup.seed}")
    ids = {name: level.id for name, level in setup.levels.items()}
    for name in sorted({*ids, *opened.levels}):
        if ids.get(name) != opened.levels.get(name):
            title = setup.levels[name].title if name in ids else "none"
            differences.append(
                f"its {name} level differs from {title} here, in settings or in the "
                "program's version"
            )
    if _start_ids(setup.start, setup.conformers) != _start_ids(
        opened.start, opened.conformers_by_start()
    ):
        names = ", ".join(molecule_names(opened.start))
        differences.append(f"it starts from {names} in other structures than here")
    for test, what in ((False, "labels it was given"), (True, "its validation set")):
        if _label_content(setup.given, test) != _label_content(opened.given, test):
            differences.append(
                f"{what} are not those of `{'validation' if test else 'start'}`"
            )
    if setup.model_id != opened.model:
        differences.append("it began with another model")
    return [*differences, *_set_differences(setup, opened)]


def _set_differences(setup: Setup, opened: Opened) -> list[str]:
    """Return the sets of acceptance that a store lacks, or has with other labels."""
    differences = [
        f"its set `{name}` of acceptance is "
        f"{'another one' if name in opened.sets else 'missing'}"
        for name, labels in setup.sets.items()
        if name not in opened.sets or not same_labels(labels, opened.sets[name])
    ]
    old, new = opened.replay, setup.replay
    if new is not None and (old is None or not same_labels(old, new)):
        differences.append(
            "the frames that it replays are not those of `training: replay`"
        )
    return differences


def _label_content(
    labels: tuple[Given, ...], test: bool
) -> set[tuple[str, str, float]]:
    return {(x.frame.id, x.fidelity, x.label.energy) for x in labels if x.test == test}


def _as_it_was(tree: Tree, where: str) -> Tree:
    """Return the configuration of a store, updated to the present format.

    Networks of older stores have no repulsion, learn nothing from stress, and all
    generations take as many steps; MD alone proposes frames. Their examination is short
    MD from first frames, and nothing lies beyond it.
    """
    tree = rename_old_keys(tree, where)
    validation = tree.get("validation", {})
    if isinstance(validation, dict):
        validation = {"examination_equilibration": 0, "beyond": 0, **validation}
        tree = {**tree, "validation": validation}
    if isinstance(tree.get("explore"), dict):
        tree = {**tree, "explore": {"shapes": None, **tree["explore"]}}
    training = tree.get("training")
    if isinstance(training, dict):
        training = {"stress": 0.0, "last": 1.0, **training}
        tree = {**tree, "training": training}
    potential = tree.get("potential")
    if not isinstance(potential, dict) or "repulsion" in potential:
        return tree
    kind = str(potential.get("kind"))
    if kind not in NETWORKS or is_pretrained(kind):
        return tree
    return {**tree, "potential": {**potential, "repulsion": "none"}}


def _kind_first(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_kind_first(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    first = {"kind": tree["kind"]} if "kind" in tree else {}
    return first | {key: _kind_first(value) for key, value in tree.items()}
