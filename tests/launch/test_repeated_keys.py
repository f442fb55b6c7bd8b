"""A dictionary with a key twice, of which Python takes the last: two policies of one name."""

import pytest

from launch import gin_files


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("{'sft': 'a', 'sft': 'b'}", "'sft'"),
        ("{'a': {'x': 1}, 'b': [{'x': 1, 'y': 2, 'x': 3}]}", "'x'"),
        ("{1: 'a', 1: 'b'}", "1"),
    ],
)
def test_a_key_twice(tmp_path, value, key):
    message = f"expected each key once, got {key} twice"
    with pytest.raises(gin_files.ConfigError, match=f"--gin.POLICIES=.*{message}"):
        gin_files.read([], [f"POLICIES={value}"])
    (tmp_path / "twice.gin").write_text(f"POLICIES = {value}\n")
    with pytest.raises(gin_files.ConfigError, match=f"twice.gin: {message}"):
        gin_files.read([str(tmp_path / "twice.gin")], [])


def test_one_key_in_several_dictionaries():
    value = "{'a': {'x': 1}, 'x': [{'x': 1}, {'x': 2}]}"
    (statement,) = gin_files.read([], [f"POLICIES={value}"])
    assert repr(statement.value) == value
