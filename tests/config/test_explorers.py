"""Explorers beside MD in campaign files: off by default, and shares that add up."""

from ase.build import bulk, molecule

from alloop.config.build import build_rules, resolve_defaults
from alloop.config.checks.plan_checks import section_conflicts, variable_problems
from alloop.config.checks.validate import validate_tree
from alloop.config.sections.plan import Plan
from alloop.config.yaml_text import parse_yaml
from alloop.core.atoms import from_atoms
from alloop.md.biases import MetadynamicsSettings, chosen_variables
from alloop.md.collective_variables import Coordination, Torsion

START = """
name: x
start: [{molecule: H2O2}]
levels: {expensive: {kind: toy}}
"""


def plan(explore: str) -> Plan:
    found, problems = validate_tree(parse_yaml(f"{START}{explore}", "x"))
    assert found is not None
    assert not problems
    return resolve_defaults(found)


def test_metadynamics_is_off_by_default() -> None:
    assert set(build_rules(plan(""), validated=False).explorers) == {"shapes"}
    text = "explore: {shapes: null, metadynamics: {}}"
    rules = build_rules(plan(text), validated=False)
    assert rules.explorers == {"metadynamics": MetadynamicsSettings()}
    assert rules.shares == {"metadynamics": 0.3, "md": 0.7}


def test_settings_are_checked() -> None:
    for wrong, path in (
        ("{factor: 1}", "factor"),
        ("{dimensions: 4}", "dimensions"),
        ("{variables: angles}", "variables"),
        ("{coordination_width: 0}", "coordination_width"),
    ):
        tree = parse_yaml(f"{START}explore: {{metadynamics: {wrong}}}", "x")
        _, problems = validate_tree(tree)
        assert [x.path for x in problems] == [f"explore.metadynamics.{path}"]


def test_something_is_left_to_md() -> None:
    both = "explore: {{shapes: {{share: {}}}, metadynamics: {{share: 0.5}}}}"
    assert not list(section_conflicts(plan(both.format(0.4)), set()))
    (problem,) = section_conflicts(plan(both.format(0.5)), set())
    assert problem.path == "explore.metadynamics.share"
    assert "0.5, got 0.5" in problem.text
    three = "explore: {metadynamics: {share: 0.4}, paths: {share: 0.3}}"
    (problem,) = section_conflicts(plan(three), set())
    assert problem.path == "explore.paths.share"
    assert "`shapes` with 0.3, `metadynamics` with 0.4, got 0.3" in problem.text


def test_something_can_be_biased() -> None:
    peroxide, water, acid = (
        from_atoms(molecule(name)) for name in ("H2O2", "H2O", "HCOOH")
    )
    crystal = from_atoms(bulk("Ar"))
    torsions = plan("explore: {metadynamics: {}}")
    assert not list(variable_problems(torsions, [water, peroxide]))
    (problem,) = variable_problems(torsions, [water, crystal])
    assert problem.path == "explore.metadynamics"
    assert "a bond that turns, got none" in problem.text
    transfers = plan("explore: {metadynamics: {variables: transfers}}")
    assert not list(variable_problems(transfers, [acid]))
    (problem,) = variable_problems(transfers, [peroxide])
    assert "within 3 Å" in problem.text
    assert not list(variable_problems(plan(""), [water]))


def test_collective_variables_may_be_named_by_their_atoms() -> None:
    text = "explore: {{metadynamics: {{variables: {}}}}}"
    peroxide = from_atoms(molecule("H2O2"))
    named = plan(
        text.format("[{torsion: [2, 0, 1, 3]}, {coordination: [0, 2, 3], radius: 1.4}]")
    )
    assert not list(variable_problems(named, [peroxide]))
    section = named.explore.metadynamics
    assert section is not None
    built = section.build()
    assert built.named == (Torsion((2, 0, 1, 3)), Coordination((0, 2, 3), 1.4))
    assert chosen_variables(peroxide, built) == built.named
    (problem,) = variable_problems(named, [peroxide, from_atoms(molecule("H2O"))])
    assert "numbered 0 to 2, got 3" in problem.text
    for wrong, path, said in (
        ("[{torsion: [2, 0, 1, 1]}]", "0", "different atoms"),
        ("[{torsion: [2, 0, 1]}]", "0.torsion.3", "is missing"),
        ("[{radius: 1}]", "0", "got none"),
        ("[{distance: [0, 1], angle: [0, 1, 2]}]", "0", "got distance, angle"),
    ):
        tree = parse_yaml(START + text.format(wrong), "x")
        _, (mistake, *_) = validate_tree(tree)
        assert mistake.path == f"explore.metadynamics.variables.{path}"
        assert said in mistake.text


def test_walkers_are_driven_by_surprise_that_has_a_gradient() -> None:
    text = "explore: {uncertainty: {}}\nflag: "
    assert not list(section_conflicts(plan(text + "{kind: q-residual}"), set()))
    for flag, kind in (
        ("{descriptors: soap}", "soap"),
        ("{kind: connectivity}", "connectivity"),
    ):
        problems = section_conflicts(plan(text + flag), set())
        texts = [x.text for x in problems if x.path == "explore.uncertainty"]
        assert len(texts) == 1
        assert kind in texts[0]


def test_temperatures_are_exchanged_where_there_are_several() -> None:
    text = "explore: {{exchange: true, steps: 100, {}}}"
    assert not list(section_conflicts(plan(text.format("piece: 50")), set()))
    for rest, path in (
        ("piece: 50, temperature: 300", "explore.exchange"),
        ("piece: 100", "explore.piece"),
    ):
        (problem,) = section_conflicts(plan(text.format(rest)), set())
        assert problem.path == path


def test_explorers_may_be_a_list() -> None:
    several = """explore:
  - {kind: langevin, walkers: 4, temperature: 300}
  - {kind: metadynamics, share: 0.2}
"""
    section = plan(several).explore
    assert (section.walkers, section.temperatures) == (4, (300.0,))
    assert section.shapes is None
    assert section.metadynamics is not None
    assert section.metadynamics.build().share == 0.2
    alone = plan("explore: [{kind: shapes, bend: 60}]").explore
    assert alone.kind == "langevin"
    assert alone.shapes is not None
    assert alone.shapes.build().bend == 60


def test_mistakes_in_a_list_of_explorers_are_told() -> None:
    for wrong, path, text in (
        ("[{kind: langevin}, {kind: verlet}]", "explore", "expected MD once"),
        ("[{kind: shapes}, {kind: shapes}]", "explore", "got shapes, shapes"),
        ("[shapes]", "explore", "each a mapping with its `kind`"),
        ("[{kind: shapes, shar: 1}]", "explore.shapes.shar", "share"),
        ("[{kind: langevin, walker: 1}]", "explore.walker", "walkers"),
        ("[{kind: umbrella}]", "explore", "umbrella"),
    ):
        _, problems = validate_tree(parse_yaml(f"{START}explore: {wrong}", "x"))
        assert [x.path for x in problems] == [path], problems
        assert text in problems[0].text
