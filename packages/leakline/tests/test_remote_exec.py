"""The folder through which another process is asked, when that process's user means us ill. On 3.14 it is asked, too:
own_process/test_holding.py, recorder/attach/test_by_python.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from leakline.errors import LeaklineError
from leakline.proc.folders import open_folder
from leakline.remote_exec import ANSWER, SCRIPT, NoAnswerError, _Place


@pytest.fixture
def place() -> _Place:
    """In this process's own /tmp."""
    made = _Place.make(os.getpid())
    made.write("script")
    made.give_to_its_user()
    return made


def linked(answer: Path, elsewhere: Path) -> None:
    answer.symlink_to(elsewhere / "kept")


def piped(answer: Path, elsewhere: Path) -> None:
    os.mkfifo(answer)


def huge(answer: Path, elsewhere: Path) -> None:
    answer.touch()
    os.truncate(answer, 1 << 40)


def torn(answer: Path, elsewhere: Path) -> None:
    answer.write_bytes(b'{"a": \xff')


@pytest.mark.parametrize("spoil", [linked, piped, huge, torn])
def test_an_answer_that_is_none_is_refused_and_gone(
    place: _Place, tmp_path: Path, spoil: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "kept").write_text("{}")
    spoil(Path(place.path) / ANSWER, tmp_path)
    with pytest.raises(LeaklineError, match="gave no answer that can be read"):
        place.wait(10)
    place.remove()
    assert not Path(place.path).exists()
    assert (tmp_path / "kept").read_text() == "{}"


def test_a_folder_that_was_exchanged_for_a_link_leads_nowhere(place: _Place, tmp_path: Path) -> None:
    for name in (SCRIPT, ANSWER):
        (tmp_path / name).write_text('"not ours"')
    moved = Path(f"{place.path}-moved")
    Path(place.path).rename(moved)
    Path(place.path).symlink_to(tmp_path)
    with pytest.raises(NoAnswerError):
        place.wait(0.01)
    place.remove()
    assert sorted(each.name for each in tmp_path.iterdir()) == [ANSWER, SCRIPT]
    Path(place.path).unlink()
    assert list(moved.iterdir()) == []
    moved.rmdir()


def test_a_script_that_was_exchanged_for_a_link_is_not_written_through(place: _Place, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    script = Path(place.path) / SCRIPT
    script.unlink()
    script.symlink_to(tmp_path / "kept")
    place.leave()
    assert (tmp_path / "kept").read_text() == "kept"
    script.unlink()
    Path(place.path).rmdir()


def test_what_is_left_to_a_process_takes_itself_away(place: _Place) -> None:
    place.leave()
    script = Path(place.path) / SCRIPT
    exec(script.read_text(), {})
    assert not Path(place.path).exists()


def test_no_link_is_followed_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "real" / "tmp").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.close(open_folder(os.getpid(), str(tmp_path / "real/tmp")))
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path / "link", tmp_path / "link/tmp", tmp_path / "absent"):
        with pytest.raises(OSError, match=r"Not a directory|No such file"):
            open_folder(os.getpid(), str(path))
    assert len(os.listdir("/proc/self/fd")) == before
