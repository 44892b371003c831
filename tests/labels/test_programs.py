"""The table of programs: complete, and free of paths that lead nowhere."""

import pytest

from alloop.config.sections.base import section_members
from alloop.config.sections.levels import AnyLevel
from alloop.core.levels import make_level
from alloop.labels.levels import level_from_name
from alloop.labels.named_code import path_problems
from alloop.labels.programs import PROGRAMS, Program, outside_code, program_of


def test_each_program_has_its_section_of_a_campaign_file() -> None:
    sections = set(section_members(AnyLevel)) - {"<program>"}
    assert sections == {f"<{kind}>" for kind in PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=lambda x: x.kind)
def test_paths_of_a_program_name_functions_and_names_make_its_levels(
    program: Program,
) -> None:
    for path in filter(None, (program.run, program.problems)):
        assert path_problems(path) == []
    for name in program.examples:
        assert program_of(level_from_name(name)) is program


def test_a_kind_that_is_no_program_is_a_path_to_the_user_s_own() -> None:
    level = make_level("mine.levels:fast", {"quality": 2})
    assert program_of(level).run == "mine.levels:fast"
    assert outside_code(level) == "mine.levels:fast"
