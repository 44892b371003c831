"""What helps on frames unlike the training set, and what foretells their errors?

    python -m benchmarks.accuracy.shift.frames --data DIR --out FOLDER
    python -m benchmarks.accuracy.shift.frames --out FOLDER --table

Sets: `molecules` left out; force `norms` above those trained on, of MD of ethanol and
of formaldehyde; scanned `bonds` of ethanol; fluorine as a rare `element`; ethanol as a
new molecule of `md17`. DIR holds h2co/ and md17_ccsd/, for the third and the last; the
others are shipped. A network of two heads is trained on each set and kept in
FOLDER/shift; with --form ordinary an ordinary one by ASTEROID, on the same labels in as
many steps, to which a cheap head is added afterwards as in `alloop refine`. Arms: doing
nothing; another radius for each system; test-time training on cheap labels of the test
frames (as published; with the expensive head fitted again to the expensive labels of
the training; with the cheap labels of the training replayed too; and the last kept only
where held-out labels get worse by no more than 2 %); as many CPU seconds of ordinary
training on the same cheap labels; and fine-tuning on the expensive labels that the
money for the cheap ones buys, at --ratio cheap labels each and one at least.

A row (a set, a seed, an arm) is a line in FOLDER/shift.jsonl: what is there is skipped.
Force errors are means over components, in meV/Å: `test` of the frames outside, `tail`
of the tenth of them with the largest errors, `inside` of held-out frames like those
trained on; `cpu` in CPU seconds, beside labels; `over` stands for multiples of the
error of doing nothing. Means over seeds, with the lowest and the highest. A second
table has Spearman's correlation of each shift and surprise with the largest
error of an atom's force, on held-out and test frames together and on the latter alone.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from alloop.potentials.two_heads import TwoHeadPotential
from alloop.refine.test_time import TestTimeSettings, with_cheap_head
from alloop.training.stages import Schedule, asteroid_stages
from alloop.training.trainers.staged_trainer import (
    StagedTrainer,
    TwoHeadTrainer,
    two_head_stages,
)
from benchmarks.accuracy.shift.arms import (
    ARMS,
    EQUAL_TIME,
    TIMED_BY,
    arm_figures,
    shift_correlations,
)
from benchmarks.accuracy.shift.sets import SETS, ShiftSet
from benchmarks.accuracy.stored_model import stored_model
from benchmarks.common import (
    Row,
    Rows,
    make_parser,
    make_table,
    mean_range,
    show,
    write_json,
)

FORETELLING = "foretelling"


def model_name(options: Namespace, name: str, seed: int) -> str:
    """Return the name of a model: all that it depends on."""
    sizes = (options.train, options.pretrain, options.finetune, options.channels)
    form = () if options.form == "two-heads" else (options.form,)
    return "-".join(map(str, (name, options.network, *form, *sizes, seed)))


def row_key(options: Namespace, name: str, seed: int, arm: str) -> str:
    """Return the key of a row: all that it depends on."""
    part = "whole" if options.whole else "beginning"
    amounts = (options.test, options.held, options.refine_steps, options.ratio, part)
    return f"{model_name(options, name, seed)}/{'-'.join(map(str, amounts))}/{arm}"


def trained_model(
    options: Namespace, name: str, seed: int, test: ShiftSet
) -> TwoHeadPotential:
    """Return the model of a set, trained now where it is missing."""
    file = options.out / "shift" / f"{model_name(options, name, seed)}.model"

    def train() -> TwoHeadPotential:
        schedule = Schedule(compile=False if options.quick else "auto")
        settings = {"channels": options.channels}
        if options.form == "ordinary":
            steps = (
                options.pretrain // 10,
                options.pretrain * 9 // 10,
                options.finetune,
            )
            ordinary = StagedTrainer(
                options.network, settings, asteroid_stages(steps, schedule)
            )
            plain = ordinary.train(test.train, None, seed)[0]
            added = TestTimeSettings(options.refine_steps)
            return with_cheap_head(plain, test.train.cheap, added)
        stages = two_head_stages((options.pretrain, options.finetune), schedule)
        trainer = TwoHeadTrainer(options.network, settings, stages)
        return trainer.train(test.train, None, seed)[0]

    model = stored_model(file, train)
    assert isinstance(model, TwoHeadPotential)
    return model


def make_rows(options: Namespace, rows: Rows) -> None:
    """Train the models and make the rows that are missing."""
    for name in options.sets:
        for seed in options.seed:
            missing = [
                arm
                for arm in (*options.arms, FORETELLING)
                if row_key(options, name, seed, arm) not in rows
            ]
            if not missing:
                continue
            test = SETS[name](options, seed)
            model = trained_model(options, name, seed, test)
            for arm in missing:
                key = row_key(options, name, seed, arm)
                if arm == FORETELLING:
                    rows[key] = dict(shift_correlations(model, test))
                    continue
                arm_options = options
                if arm == EQUAL_TIME:
                    spent = rows[row_key(options, name, seed, TIMED_BY)]["cpu"]
                    arm_options = Namespace(**vars(options), seconds=spent)
                rows[key] = dict(arm_figures(arm, model, test, arm_options))


def summary_rows(options: Namespace, rows: Rows, name: str) -> list[Row]:
    """Return a row for each arm: means over seeds, with the lowest and the highest.

    Columns with `over` are multiples of what doing nothing gives with the same seed.
    """
    pairs: dict[str, list[tuple[Row, Row]]] = {}
    for arm in options.arms:
        keys = [
            (row_key(options, name, seed, arm), row_key(options, name, seed, "nothing"))
            for seed in options.seed
        ]
        if done := [(rows[key], rows[base]) for key, base in keys if key in rows]:
            pairs[arm] = done
    made = [row for done in pairs.values() for row, _ in done]
    shared = [x for x in (made[0] if made else ()) if all(x in row for row in made)]
    out: list[Row] = []
    for arm, done in pairs.items():
        figures = {x: mean_range([row[x] for row, _ in done]) for x in shared}
        over = {
            f"{x}, over": mean_range([row[x] / base[x] for row, base in done])
            for x in ("test", "tail", "inside")
        }
        out.append({"arm": arm, "seeds": len(done), **figures, **over})
    return out


def correlation_rows(options: Namespace, rows: Rows, name: str) -> list[Row]:
    """Return a row for each shift and surprise: Spearman's correlation over seeds."""
    keys = (row_key(options, name, seed, FORETELLING) for seed in options.seed)
    done = [rows[key] for key in keys if key in rows]
    lines: list[Row] = []
    for by in done[0] if done else ():
        together, outside = zip(*(row[by] for row in done), strict=True)
        spreads = {"together": mean_range(together), "outside": mean_range(outside)}
        lines.append({"by": by, "seeds": len(done), **spreads})
    return lines


def add_options(parser: ArgumentParser) -> None:
    """Add the options on models, sets and refinements."""
    add = parser.add_argument
    add("--data", type=Path, default=Path(), help="the folder of h2co/ and md17_ccsd/")
    add("--out", type=Path, required=True, help="the folder of models and rows")
    add("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add("--seed", type=int, nargs="+", default=list(range(3)))
    add("--network", choices=("painn", "gemnet"), default="painn")
    add("--channels", type=int, default=64)
    add("--form", choices=("two-heads", "ordinary"), default="two-heads")
    add("--train", type=int, default=600, help="training frames, at both levels")
    add("--test", type=int, default=200, help="test frames, outside")
    add("--held", type=int, default=100, help="held-out frames, inside")
    add("--pretrain", type=int, default=3000, help="steps on cheap labels")
    add("--finetune", type=int, default=1000, help="steps on expensive labels")
    add("--refine-steps", type=int, default=1500, help="steps of each refinement")
    add("--whole", action="store_true", help="move the whole representation")
    add("--ratio", type=float, default=100.0, help="cheap labels for an expensive one")
    add("--table", action="store_true", help="show what the folder holds")


def parse_options(parser: ArgumentParser) -> Namespace:
    """Return the options; `--quick` makes all small."""
    options = parser.parse_args()
    if options.quick:
        options.sets, options.seed, options.channels = ["molecules"], [0], 8
        options.train, options.test, options.held = 60, 20, 20
        options.pretrain, options.finetune, options.refine_steps = 40, 20, 10
    return options


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add_options(parser)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    options = parse_options(parser)
    rows = Rows(options.out / "shift.jsonl")
    if not options.table:
        make_rows(options, rows)
    figures = {}
    for name in options.sets:
        arms = summary_rows(options, rows, name)
        foretold = correlation_rows(options, rows, name)
        if arms:
            show(make_table(f"{name}: force errors, meV/Å", arms))
        if foretold:
            show(make_table(f"{name}: what foretells the error", foretold))
        figures[name] = {"arms": arms, "foretelling": foretold}
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
