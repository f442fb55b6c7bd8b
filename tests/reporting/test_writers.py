"""Who writes, and lines of JSON that outlive a kill."""

import json

import jax
import pytest

from po_jax.reporting.writers import JsonLines, writers_of


def lines(path):
    """Read strictly: Python's reader would take NaN, which is no JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_each_record_is_a_line_as_soon_as_it_is_written(tmp_path):
    writer = JsonLines(tmp_path / "run")
    writer.scalars(3, "train", {"loss": 0.5, "kl": 2.25})
    assert lines(tmp_path / "run" / "metrics.jsonl") == [
        {"step": 3, "split": "train", "loss": 0.5, "kl": 2.25}
    ]
    writer.scalars(4, "held_out", {"win_rate": 0.75})
    writer.text(4, "held_out", "ein Satz —\n\u2028zwei")
    assert lines(tmp_path / "run" / "metrics.jsonl")[1:] == [
        {"step": 4, "split": "held_out", "win_rate": 0.75}
    ]
    assert lines(tmp_path / "run" / "texts.jsonl") == [
        {"step": 4, "name": "held_out", "text": "ein Satz —\n\u2028zwei"}
    ]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_know_is_left_out(tmp_path, number):
    JsonLines(tmp_path).scalars(1, "train", {"kl": number, "loss": 0.5})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "split": "train", "loss": 0.5}]


def test_a_resumed_run_drops_the_records_of_later_steps(tmp_path):
    killed = JsonLines(tmp_path)
    for step in (2, 4, 6):
        killed.scalars(step, "train", {"loss": 1.0 / step})
        killed.text(step, "held_out", f"sample of {step}")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "spl')  # cut short by the kill
    resumed = JsonLines(tmp_path, 4)
    resumed.scalars(5, "train", {"loss": 0.125})
    found = lines(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["loss"]) for line in found] == [(2, 0.5), (4, 0.25), (5, 0.125)]
    assert [line["step"] for line in lines(tmp_path / "texts.jsonl")] == [2, 4]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "texts.jsonl"}


def test_a_kill_while_records_are_dropped_loses_none(tmp_path, monkeypatch):
    JsonLines(tmp_path).scalars(2, "train", {"loss": 0.5})
    JsonLines(tmp_path).scalars(9, "train", {"loss": 0.25})
    before = (tmp_path / "metrics.jsonl").read_text()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        JsonLines(tmp_path, 2)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_only_process_0_writes(tmp_path, monkeypatch):
    (writer,) = writers_of(tmp_path / "zero", [JsonLines], 0)
    assert isinstance(writer, JsonLines)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert writers_of(tmp_path / "one", [JsonLines], 0) == []
    assert not (tmp_path / "one").exists()
