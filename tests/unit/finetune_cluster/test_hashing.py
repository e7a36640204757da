from pathlib import Path

import pytest

from finetune_cluster.hashing import digest_of, files_below


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "a.py").write_text("a = 1\n")
    (tmp_path / "src" / "deep" / "b.py").write_text("b = 2\n")
    return tmp_path


def digest(tree: Path) -> str:
    return digest_of(["image"], files_below(tree, ["src"]))


def test_content_names_and_execution_rights_count(tree: Path) -> None:
    digests = {digest(tree)}
    (tree / "src" / "a.py").write_text("a = 2\n")
    digests.add(digest(tree))
    (tree / "src" / "a.py").rename(tree / "src" / "c.py")
    digests.add(digest(tree))
    (tree / "src" / "c.py").chmod(0o755)
    digests.add(digest(tree))
    assert len(digests) == 4


def test_times_and_byte_code_do_not_count(tree: Path) -> None:
    before = digest(tree)
    (tree / "src" / "a.py").touch()
    (tree / "src" / "__pycache__").mkdir()
    (tree / "src" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"\0")
    assert digest(tree) == before


def test_words_do_not_run_into_each_other() -> None:
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])


def test_a_path_that_is_missing_is_an_error_and_not_an_empty_input(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        files_below(tree, ["src", "gone"])
