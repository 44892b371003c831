"""Folders that code is taken from."""

from pathlib import Path

from alloop.models.private_folder import own_folder


def test_a_folder_where_others_can_write_is_left_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    first = own_folder(path)
    assert first == own_folder(path) == path
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o777)  # as if somebody had made it before us
    other = own_folder(path)
    assert other == own_folder(path) != path
    assert other.stat().st_mode & 0o077 == 0
    path.rmdir()
    path.symlink_to(other)
    assert own_folder(path) == other
    other.chmod(0o770)
    assert own_folder(path) not in (path, other)
