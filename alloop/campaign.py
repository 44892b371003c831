"""The `Campaign` class, the Python interface of alloop.

A campaign consists of a configuration and a store; running it again resumes it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from ase import Atoms
from markupsafe import escape

from alloop import config
from alloop.core.atoms import chemical_symbol
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.levels import Fidelity
from alloop.core.records import Label
from alloop.core.roles import Scorer, Selector
from alloop.core.species import Domain
from alloop.core.text import plural
from alloop.driver.own_parts import OwnParts, refuse_unfit_parts
from alloop.driver.run import CallerParts, RunObserver, open_run
from alloop.export import (
    USUAL,
    Choice,
    Exported,
    Levels,
    Program,
    Splits,
    dataset,
    write_export,
    write_trainer_folder,
)
from alloop.files.targets import MODELS, refuse_target, replace_atomically
from alloop.generation import Generation, from_bytes, to_bytes
from alloop.history.acceptance import (
    generation_sentence,
    require_accepted,
    warn_of_unaccepted,
)
from alloop.history.examination import limits_in_force
from alloop.history.label_entries import lost_labels
from alloop.history.reader import CODEC, History, history_of, read_history
from alloop.history.saved_fold import campaign_beginning
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.free_atoms import free_atom_energies
from alloop.labels.programs import outside_code
from alloop.loop import events as e
from alloop.loop.policy import Policy
from alloop.loop.state import LoopState
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.restore import restore_potential
from alloop.report.analysis.campaign_facts import generation_facts
from alloop.report.analysis.outcome import measured_errors, outcome_facts
from alloop.store.addresses import refuse_remote, store_address
from alloop.store.archive import Archive
from alloop.store.remote import fetch_store
from alloop.store_copies.fork import (
    FinishedLabels,
    control_stores,
    fork_store,
    posed_frames,
    prepare_control,
)
from alloop.workers.settings import OwnPotential
from alloop.workers.shared_cluster import SharedCluster


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """The end of a run: `finished` is the reason, None if it was stopped early."""

    finished: str | None
    state: LoopState
    store: Path | None = None

    def __repr__(self) -> str:
        end = self.finished or self.state.broken or "stopped early"
        rounds = plural(self.state.exploration.round, "round")
        generations = plural(self.state.generations.count, "generation")
        return f"Outcome({end}; {rounds}, {generations})"

    def _repr_html_(self) -> str:
        """Return the table and the learning curve of the campaign, for notebooks."""
        if self.store is None:
            return str(escape(repr(self)))
        return _notebook_page(self.store)

    @property
    def exit_code(self) -> int:
        """0 if finished, 3 if stopped early or stuck, but resumable."""
        return 0 if self.finished and not self.state.broken else 3


class Campaign:
    """A campaign, which may or may not have been started.

    Open one with `from_yaml` or `from_store`; `run()` may be called repeatedly.
    """

    def __init__(
        self, setup: config.Setup, parts: CallerParts | None = None, trust: bool = True
    ) -> None:
        self.setup = setup
        self._parts = parts or CallerParts()
        self._trust = trust
        self.store = setup.store

    def __repr__(self) -> str:
        facts = "; ".join(f"{name}: {x}" for name, x in self._facts().items())
        return f"Campaign({self.setup.name}; {facts})"

    def _repr_html_(self) -> str:
        """Return the table and the learning curve of the campaign, for notebooks."""
        from alloop.report.sections.summary_sections import table_page

        if self._started():
            return _notebook_page(self.store)
        return str(table_page(self.setup.name, self._facts()))

    def _started(self) -> bool:
        return self.store.exists() and bool(self.history().entries)

    def _facts(self) -> dict[str, str]:
        """Return molecules and levels, and what was reached, by name in words."""
        facts = {"molecules": ", ".join(dict.fromkeys(self.setup.molecules))}
        facts |= {name: level.title for name, level in self.setup.levels.items()}
        if not self._started():
            return {**facts, "state": "not started"}
        history = self.history()
        reached = outcome_facts(history, _control_histories(self.store))
        return {**facts, **{name: str(fact) for name, fact in reached.items()}}

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        potential: OwnPotential | None = None,
        *,
        scorer: Scorer | None = None,
        selector: Selector | None = None,
        policy: Policy | None = None,
    ) -> "Campaign":
        """Open the campaign that a YAML file describes.

        potential: an own potential, in place of the one that the file names. scorer,
        selector: in place of those of `flag:`; random selection stays random. policy:
        decides in place of `alloop.loop.policy.decide`. The store records the names of
        such parts, and later runs need the same ones. Raises InputError for a part that
        does not do what its role asks for, and for every mistake in the file.
        """
        parts = _checked_parts(potential, scorer, selector, policy)
        return cls(config.load_campaign(Path(path)), parts)

    @classmethod
    def from_dict(
        cls,
        settings: Mapping[str, Any],
        folder: str | Path = ".",
        potential: OwnPotential | None = None,
        *,
        scorer: Scorer | None = None,
        selector: Selector | None = None,
        policy: Policy | None = None,
    ) -> "Campaign":
        """Open the campaign that a mapping describes, with the keys of a YAML file.

        folder: where its relative paths begin; the others as in `from_yaml`. Raises
        InputError with every mistake.
        """
        text = yaml.safe_dump(dict(settings), sort_keys=False)
        parts = _checked_parts(potential, scorer, selector, policy)
        return cls(config.parse_campaign(text, Path(folder)), parts)

    @classmethod
    def from_store(
        cls,
        path: str | Path,
        potential: OwnPotential | None = None,
        trust: bool = False,
        *,
        scorer: Scorer | None = None,
        selector: Selector | None = None,
        policy: Policy | None = None,
    ) -> "Campaign":
        """Open the campaign of a store; no other file is needed.

        path: or an address, `https://` or `s3://`, of a store to read: see
        `alloop.store.remote`.
        potential, scorer, selector, policy: the parts that the campaign began with, see
        `from_yaml`. trust: let `run` execute code that the store's configuration names.
        """
        address = store_address(path)
        store = Path(path) if address is None else fetch_store(address)
        text, opened = campaign_beginning(store)
        setup = config.Setup.from_store(text, opened, store)
        parts = _checked_parts(potential, scorer, selector, policy)
        return cls(setup, parts, trust)

    def run(
        self,
        client: Any = None,
        observer: RunObserver | None = None,
        retry: bool = False,
    ) -> Outcome:
        """Start or continue until the budget is spent or the target met.

        client: a distributed.Client to run on, instead of the configured cluster.
        observer: callbacks; its `stop` may end the run early. retry: request labels
        again, once, that a limit or a crash cost (`lost`). Raises InputError where the
        store belongs to another campaign or names untrusted code, LockedError where
        another driver runs it.
        """
        refuse_remote(self.store)
        self.refuse_distrusted()
        parts = replace(self._parts, client=client)
        with open_run(self.setup, observer or RunObserver(), parts) as run:
            state = run.run_loop(retry)
        return Outcome(state.finished, state, self.store)

    def check(self) -> list[str]:
        """Return warnings, as `alloop check` prints them; an empty list without any.

        Mistakes raise InputError when a campaign is opened; here it is raised where the
        store belongs to another campaign. Runs nothing.
        """
        self.setup.refuse_other_store(str(self.store))
        return list(self.setup.warnings)

    def plan(self, measure: bool = True) -> dict[str, Any]:
        """Return what the campaign will cost, as `alloop plan --json` prints it.

        measure: make one label of each molecule of unknown cost, and a few steps of MD
        and training. `labels` is a list of mappings; CPU time is in seconds.
        """
        from alloop.planning.plan_table import plan_facts

        return plan_facts(self.setup, measure)

    def errors(self) -> list[dict[str, Any]]:
        """Return the errors of the best generation, a mapping for each set of frames.

        The first is the one to quote. Energies in eV, forces in eV/Å;
        `pandas.DataFrame` takes the list.
        """
        return [asdict(errors) for errors in measured_errors(self.history())]

    def learning_curve(self) -> list[dict[str, Any]]:
        """Return labels, costs and errors of all generations, a mapping for each.

        Errors on the validation set in eV and eV/Å, costs in CPU seconds;
        `pandas.DataFrame` takes the list.
        """
        return [
            {**asdict(x), "refinement": x.refinement is not None}
            for x in generation_facts(self.history())
        ]

    def refuse_distrusted(self) -> None:
        """Raise InputError if the store's configuration names untrusted code."""
        named = [] if self._trust else self.setup.named_code
        if named:
            raise InputError(
                f"{self.store} has a configuration that runs code of its own "
                f"({'; '.join(named)}): if you trust whoever wrote it, add `--trust` "
                "(in Python: `Campaign.from_store(store, trust=True)`)"
            )

    def lost(self) -> int:
        """Return the number of lost labels, which `run(retry=True)` requests again."""
        return len(lost_labels(self.history())) if self.store.exists() else 0

    def control(self, name: str) -> "Campaign":
        """Return a control campaign at the label cost of this one, which is finished.

        name: "standard" (expensive labels alone) or "random" (random selection). It
        starts from this campaign's first labels, and reuses its labels where both need
        the same ones.
        """
        history = self.history()
        setup = prepare_control(name, self.setup, history)
        shared = (FinishedLabels(history.label_index),)
        posed = posed_frames(history)
        parts = replace(self._parts, caches=shared, posed=posed)
        return Campaign(setup, parts, self._trust)

    def after(self, stores: Iterable[Path], cluster: SharedCluster) -> "Campaign":
        """Return this campaign as one of several in a row.

        stores: of the others; labels of theirs that this one needs are taken over.
        cluster: the workers that all of them use.
        """
        others = [
            x for x in stores if x.exists() and x.resolve() != self.store.resolve()
        ]
        caches = tuple(FinishedLabels(read_history(x).label_index) for x in others)
        parts = replace(self._parts, caches=caches, cluster=cluster)
        return Campaign(self.setup, parts, self._trust)

    def finished(self) -> str | None:
        """Return why the campaign has ended, None if a run has something left to do."""
        if not self.store.exists():
            return None
        history = self.history()
        altered = config.changes_since(history.config, self.setup.text)
        done = not (altered or history.state.broken)
        return history.state.finished if done else None

    def fork(
        self, out: str | Path, at: int | None = None, rules: str | Path | None = None
    ) -> "Campaign":
        """Make a campaign in the store `out`, continuing a generation of this one.

        at: the generation, by default the newest. This campaign is not changed. rules:
        a YAML file with the rules of the fork, and the same seed, start and levels.
        Raises InputError where there is no such generation or `out` exists.
        """
        fork_store(self.store, Path(out), at, None if rules is None else Path(rules))
        parts = CallerParts(own=self._parts.own)
        return Campaign(Campaign.from_store(out).setup, parts, self._trust)

    def history(self) -> History:
        """Return the contents of the store; may be called while a driver runs."""
        return read_history(self.store)

    def model(self, generation: int | None = None) -> Generation:
        """Return a generation, by default the best one.

        The best has the smallest error on the validation set; without any test it is
        the newest. Limits of its errors know the examination too.
        """
        history = self.history()
        trained = {event.generation: event for _, event in history.generations}
        number = history.state.generations.best if generation is None else generation
        if number not in trained:
            generations = ", ".join(map(str, sorted(trained))) or "none yet"
            raise InputError(
                f"expected a generation of {self.store} (there are: {generations}), "
                f"got {number}"
            )
        event = trained[number]
        with Archive.open(self.store, CODEC) as archive:
            own_parts = self._parts.own
            restore = (
                own_parts.potential.restore
                if own_parts.potential
                else restore_potential
            )
            generation_model = from_bytes(
                archive.model(event.model), restore, own_parts.scorer
            )
        barred = self.setup.rules.barred_doubts("expensive")
        return replace(
            generation_model, error_limits=limits_in_force(history, event, barred)
        )

    def calculator(
        self,
        generation: int | None = None,
        *,
        outside: bool = False,
        threads: int = 1,
        compile: bool = False,
    ) -> PotentialCalculator:
        """Return an ASE calculator of energy, forces, stress (of cells) and surprise.

        generation: by default the best one, see `model`; `source` and `repr` of the
        calculator say which. outside: allow charges, spins and compositions that the
        model was not trained on, which raise InputError otherwise. threads: of torch,
        in each call. compile: for long MD of one system, see PotentialCalculator.
        """
        model, state = self.model(generation), self.history().state
        if generation is None:
            warn_of_unaccepted(state)
        model = replace(model, domain=self.domain(model))
        calculator = model.calculator(outside=outside, threads=threads, compile=compile)
        source = f"{self.setup.name}, {generation_sentence(state, generation)}"
        calculator.source = source
        return calculator

    def domain(self, model: Generation) -> Domain:
        """Return the training domain of a generation.

        Generations of older versions have none; for these it is made from all labels of
        the store.
        """
        if model.domain is not None:
            return model.domain
        label_index = self.history().label_index
        good = (x for x in label_index.labels.values() if isinstance(x, Label))
        ids = dict.fromkeys(label.frame for label in good)
        return Domain.of(pack_frames([label_index.frames[frame] for frame in ids]))

    def dataset(
        self,
        level: Levels = "expensive",
        split: Splits = "train",
        at: int | None = None,
    ) -> list[Atoms]:
        """Return labelled frames as ase.Atoms: `REF_energy` (eV), `REF_forces` (eV/Å).

        By default the training set of the last generation at the expensive level;
        `info` has `level`, `split` and the origin of each label. Parameters as in
        `Choice`; with level "both" the keys name their level (`REF_energy_cheap`, ...).
        """
        return dataset(self.history(), self._chosen(Choice(level, split, at)))

    def export(
        self, out: str | Path, choice: Choice = USUAL, *, force: bool = False
    ) -> tuple[Exported, ...]:
        """Write labels as extxyz or, if `out` ends in .db, as an ASE database.

        choice: level, split and generation of the labels; force: replace existing
        files. Returns a file for each level.
        """
        return write_export(
            self.history(), Path(out), self._chosen(choice), force=force
        )

    def export_for(self, program: Program, folder: str | Path, choice: Choice) -> str:
        """Write a new folder that MACE or NequIP trains on; return the line to call it.

        choice: one level, all splits. Energies of free atoms are those of
        `training: references:`, or are computed now at the level. Raises InputError
        where the folder exists, a split has no frames or an atom gets no label.
        """
        frames = dataset(self.history(), self._chosen(choice))
        numbers = {int(z) for atoms in frames for z in atoms.numbers}
        fidelity: Fidelity = "cheap" if choice.level == "cheap" else "expensive"
        free_atoms = self._free_atoms(fidelity, numbers)
        return write_trainer_folder(Path(folder), program, frames, free_atoms)

    def _free_atoms(self, fidelity: Fidelity, numbers: set[int]) -> dict[str, float]:
        references = getattr(self.setup.plan.training, "references", None)
        energies = getattr(references, fidelity, None)
        energies_given = energies if isinstance(energies, dict) else {}
        missing = {z for z in numbers if chemical_symbol(z) not in energies_given}
        if not missing:
            return {
                chemical_symbol(z): energies_given[chemical_symbol(z)] for z in numbers
            }
        level = self.setup.levels[fidelity]
        if code := outside_code(level):
            raise InputError(
                f"expected energies of free atoms, {code} is not run by an export; "
                f"give them as `training: {{references: {{{fidelity}: ...}}}}`"
            )
        with IsolatedLabeller(level) as labeller:
            return free_atom_energies(labeller, numbers)

    def _chosen(self, choice: Choice) -> Choice:
        """Return the choice with the share of frames that the trainer holds out."""
        share = getattr(self.setup.plan.training, "validation", 0.0)
        return replace(choice, validation=share)

    def export_model(
        self, out: str | Path, generation: int | None = None, *, force: bool = False
    ) -> Path:
        """Write a standalone model file that `alloop.load` opens without the store.

        generation: by default the best one, see `model`. force: replace an existing
        file, atomically. Raises InputError where no generation passed its checks and
        none is named.
        """
        path = Path(out)
        refuse_target(path, MODELS, force=force)
        if generation is None:
            require_accepted(self.history().state)
        blob = to_bytes(self.model(generation))[1]
        with replace_atomically(path) as partial:
            partial.write_bytes(blob)
        return path

    def exclude(self, frame: str, fidelity: Fidelity | None, reason: str) -> str:
        """Exclude a frame (or only its label at one fidelity) from all later training.

        frame: an id or its unique beginning. Returns the id. Recorded in the journal.
        """
        with Archive.open(self.store, CODEC, mode="w") as archive:
            history = history_of(archive)
            id = history.frame(frame).id
            archive.append(e.Turn(e.Excluded(id, fidelity, reason)))
        return id

    def include(self, frame: str, fidelity: Fidelity | None, reason: str = "") -> str:
        """Undo an exclusion by hand, at one fidelity or at all.

        Returns the id. Recorded in the journal. Raises InputError where there is no
        such exclusion.
        """
        with Archive.open(self.store, CODEC, mode="w") as archive:
            history = history_of(archive)
            id = history.frame(frame).id
            out = sorted(
                what for name, what in history.state.labels.excluded if name == id
            )
            if not out or fidelity not in (None, *out):
                place = "" if fidelity is None else f" at {fidelity}"
                state = f"excluded at {' and '.join(out)}" if out else "not excluded"
                raise InputError(
                    f"expected a frame that is excluded{place}, {id[:8]} is {state}"
                )
            archive.append(e.Turn(e.Included(id, fidelity, reason)))
        return id

    def controls(self) -> dict[str, Path]:
        """Return the stores of the control campaigns by name, finished or not."""
        return control_stores(self.store)


def _control_histories(store: Path) -> dict[str, History]:
    """Return the histories of a campaign's controls by name."""
    stores = control_stores(store)
    return {name: read_history(path) for name, path in stores.items()}


def _notebook_page(store: Path) -> str:
    """Return table and learning curve of a campaign as HTML."""
    from alloop.report.sections.summary_sections import notebook_page  # matplotlib

    return str(notebook_page(read_history(store), _control_histories(store)))


def _checked_parts(*parts: Any) -> CallerParts:
    """Return a user's potential, scorer, selector and policy, each fit for its role."""
    user_parts = OwnParts(*parts)
    refuse_unfit_parts(user_parts)
    return CallerParts(own=user_parts)
