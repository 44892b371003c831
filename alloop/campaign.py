"""A campaign is a configuration and an archive; running it twice is resuming it.

Here everything is put together: configuration, store, cluster and loop. The command
line calls these methods and nothing else.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ase import Atoms

from alloop import config, controls
from alloop.config.named_code import code_named
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.core.species import Domain
from alloop.driver.run import CallerParts, RunObserver, open_run
from alloop.export import USUAL, Choice, Exported, Levels, Splits, dataset, write_export
from alloop.files.atomic_write import replace_atomically
from alloop.files.targets import MODELS, refuse_target
from alloop.forking import fork_store
from alloop.generation import Generation, from_bytes
from alloop.history.lost_requests import lost_labels
from alloop.history.reader import CODEC, History, history_of, read_history
from alloop.history.saved_fold import campaign_beginning
from alloop.loop import events as e
from alloop.loop.state import LoopState
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.store.archive import Archive
from alloop.workers.settings import OwnPotential


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: `finished` is the reason, None if it was stopped early."""

    finished: str | None
    state: LoopState

    @property
    def exit_code(self) -> int:
        """0 done, 3 stopped early or stuck, but resumable."""
        return 0 if self.finished and not self.state.broken else 3


class Campaign:
    """A campaign, started or not.

    Open one with `from_yaml` or `from_store`; then `run()`, as often as you like.
    """

    def __init__(
        self, setup: config.Setup, guests: CallerParts | None = None, trust: bool = True
    ) -> None:
        self.setup = setup
        self._guests = guests or CallerParts()
        self._trust = trust
        self.store = setup.store

    @classmethod
    def from_yaml(
        cls, path: str | Path, potential: OwnPotential | None = None
    ) -> "Campaign":
        """The campaign that a YAML file describes; InputError lists every mistake.

        potential: one's own, in place of the one that the file names.
        """
        return cls(config.load_campaign(Path(path)), CallerParts(potential=potential))

    @classmethod
    def from_store(
        cls,
        path: str | Path,
        potential: OwnPotential | None = None,
        trust: bool = False,
    ) -> "Campaign":
        """The campaign that a store holds; needs nothing but the store.

        trust: let `run` execute code that the store's configuration names.
        """
        text, opened = campaign_beginning(Path(path))
        setup = config.Setup.from_store(text, opened, Path(path))
        return cls(setup, CallerParts(potential=potential), trust)

    def run(
        self, client: Any = None, watch: RunObserver | None = None, retry: bool = False
    ) -> Outcome:
        """Start or continue, until the budget is spent, the target met or `watch.stop`.

        client: a distributed.Client to run on, instead of the configured cluster.
        retry: ask again, once, for labels that a limit or a crash cost (`lost`).
        Raises InputError where the store belongs to another campaign (seed, start or
        levels differ) or names code and is not trusted, LockedError where another
        driver runs it.
        """
        self.refuse_distrusted()
        guests = replace(self._guests, client=client)
        with open_run(self.setup, watch or RunObserver(), guests) as run:
            state = run.run_loop(retry)
        return Outcome(state.finished, state)

    def refuse_distrusted(self) -> None:
        """InputError where the store's configuration names code, and nobody said that
        it may run."""
        named = [] if self._trust else code_named(self.setup)
        if named:
            raise InputError(
                f"{self.store} has a configuration that runs code of its own "
                f"({'; '.join(named)}): if you trust whoever wrote it, add `--trust` "
                "(in Python: `Campaign.from_store(store, trust=True)`)"
            )

    def lost(self) -> int:
        """How many labels a limit, a crash or a lost worker cost: `run(retry=True)`
        asks for them again."""
        return len(lost_labels(self.history())) if self.store.exists() else 0

    def control(self, name: str) -> "Campaign":
        """A control campaign at the label cost of this one, which is finished.

        name: "standard" (expensive labels alone) or "random" (random selection). It
        starts from this campaign's first labels and takes from it what both need.
        """
        history = self.history()
        setup = controls.prepare_control(name, self.setup, history)
        shared = (controls.FinishedLabels(history.ledger),)
        posed = controls.posed(history)
        guests = replace(self._guests, caches=shared, posed=posed)
        return Campaign(setup, guests, self._trust)

    def fork(
        self, out: str | Path, at: int | None = None, rules: str | Path | None = None
    ) -> "Campaign":
        """A new campaign in the store `out` that goes on from generation `at` of this
        one, by default the newest; this one stays as it is.

        rules: a YAML file that decides from here on, with the same seed, start and
        levels. InputError where there is no such generation or `out` is taken.
        """
        fork_store(self.store, Path(out), at, None if rules is None else Path(rules))
        return Campaign.from_store(out, self._guests.potential, self._trust)

    def history(self) -> History:
        """All that the store says; may be read while a driver runs."""
        return read_history(self.store)

    def model(self, generation: int | None = None) -> Generation:
        """A generation, by default the best one: the one that errs least on the frozen
        set, the newest where none was tested."""
        history = self.history()
        trained = {event.generation: event.model for _, event in history.generations}
        wanted = history.state.best if generation is None else generation
        if wanted not in trained:
            known = ", ".join(map(str, sorted(trained))) or "none yet"
            raise InputError(
                f"expected a generation of {self.store} (there are: {known}), "
                f"got {wanted}"
            )
        with Archive.open(self.store, CODEC) as archive:
            own = self._guests.potential
            blob = archive.model(trained[wanted])
            return from_bytes(blob) if own is None else from_bytes(blob, own.restore)

    def calculator(
        self,
        generation: int | None = None,
        *,
        outside: bool = False,
        threads: int = 1,
        compile: bool = False,
    ) -> PotentialCalculator:
        """An ASE calculator of energy, forces, the stress of cells and surprise, by
        default of the best generation, as `model` has it.

        outside: also of charges, spins and compositions that the model was not trained
        on, which raise InputError otherwise. threads: of torch, in each call. compile:
        for long MD of one system, see PotentialCalculator.
        """
        model = self.model(generation)
        told = replace(model, domain=self.domain(model))
        return told.calculator(outside=outside, threads=threads, compile=compile)

    def domain(self, model: Generation) -> Domain:
        """What a generation was trained on: in its own words, or, for one of an older
        alloop, all that the store has labels of."""
        if model.domain is not None:
            return model.domain
        ledger = self.history().ledger
        good = (x for x in ledger.labels.values() if isinstance(x, Label))
        ids = dict.fromkeys(label.frame for label in good)
        return Domain.of(pack_frames([ledger.frames[frame] for frame in ids]))

    def dataset(
        self,
        level: Levels = "expensive",
        split: Splits = "train",
        at: int | None = None,
    ) -> list[Atoms]:
        """Return labelled frames as ase.Atoms: `REF_energy` (eV), `REF_forces` (eV/Å).

        By default what the last generation was trained on at the expensive level;
        `info` tells `level`, `split` and where a label comes from. Parameters as in
        `export`; with level "both" the keys name their level (`REF_energy_cheap`, ...).
        """
        return dataset(self.history(), self._chosen(Choice(level, split, at)))

    def export(
        self, out: str | Path, choice: Choice = USUAL, *, force: bool = False
    ) -> tuple[Exported, ...]:
        """Write labels as extxyz or, if `out` ends in .db, as an ASE database.

        choice: of which level, split and generation; force: replace what is there.
        Returns a file for each level.
        """
        return write_export(
            self.history(), Path(out), self._chosen(choice), force=force
        )

    def _chosen(self, choice: Choice) -> Choice:
        """The choice with the share of frames that the campaign's trainer holds out."""
        share = getattr(self.setup.plan.training, "validation", 0.0)
        return replace(choice, validation=share)

    def export_model(
        self, out: str | Path, generation: int | None = None, *, force: bool = False
    ) -> Path:
        """Write a standalone model file that `alloop.load` opens without the store;
        by default the best generation, as `model` has it.

        force: replace what is there, as a whole.
        """
        from alloop.generation import to_bytes

        path = Path(out)
        refuse_target(path, MODELS, force=force)
        blob = to_bytes(self.model(generation))[1]
        with replace_atomically(path) as partial:
            partial.write_bytes(blob)
        return path

    def exclude(self, frame: str, fidelity: str | None, reason: str) -> str:
        """Take a frame (or only its label at one fidelity) out of all later training.

        frame: an id or its unique beginning. Returns the id. Journalled.
        """
        with Archive.open(self.store, CODEC, mode="w") as archive:
            history = history_of(archive)
            found = history.frame(frame).id
            archive.append(e.Turn(e.Excluded(found, fidelity, reason)))
        return found

    def include(self, frame: str, fidelity: str | None, reason: str = "") -> str:
        """Undo an exclusion by hand, at one fidelity or all of the frame's.

        Returns the id. Journalled. Raises InputError where nothing is excluded so.
        """
        with Archive.open(self.store, CODEC, mode="w") as archive:
            history = history_of(archive)
            found = history.frame(frame).id
            out = sorted(what for name, what in history.state.excluded if name == found)
            if not out or fidelity not in (None, *out):
                said = f"excluded at {' and '.join(out)}" if out else "not excluded"
                raise InputError(
                    f"expected a frame that is excluded{_at(fidelity)}, "
                    f"{found[:8]} is {said}"
                )
            archive.append(e.Turn(e.Included(found, fidelity, reason)))
        return found

    def controls(self) -> dict[str, Path]:
        """Where the stores of the control campaigns lie, finished or not."""
        return controls.control_stores(self.store)


def _at(fidelity: str | None) -> str:
    return "" if fidelity is None else f" at {fidelity}"
