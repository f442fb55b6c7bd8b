"""Several answers a paper: SFT imitates the first, ROUGE takes the best."""

import pytest
import seqio

from tasks import scitldr

PAPER = {"source": ["We study cats.", "They sleep."], "target": ["Cats sleep.", "", "On cats."]}


def test_a_paper():
    assert scitldr.paper(PAPER, "here") == {
        "inputs": "summarize: We study cats. They sleep.",
        "targets": "Cats sleep.",
        "answers": ["Cats sleep.", "On cats."],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "We study cats."}, "'source' to be a list of texts, got 'We study"),
        ({"source": []}, "'source' to be a list of texts"),
        ({"target": [3]}, "'target' to be a list of texts, got \\[3\\]"),
        ({"target": [" "]}, "'target' is empty"),
        ({"source": ["", " "]}, "'source' is empty"),
    ],
)
def test_lines_of_another_schema_are_told(change, message):
    with pytest.raises(ValueError, match=f"f.jsonl, line 7: .*{message}"):
        scitldr.paper({**PAPER, **change}, "f.jsonl, line 7")


def test_real_files_by_task(shared_data, monkeypatch):
    monkeypatch.setenv(scitldr.FOLDER_VARIABLE, str(shared_data / "scitldr"))
    task = seqio.get_mixture_or_task("scitldr_sft")
    (batch,) = task.get_dataset(None, "validation", shuffle=False).ragged_batch(1000)
    assert batch["inputs"].shape[0] == 619
    assert batch["answers"].row_lengths().numpy().max() > 1
    first = [answers[0] for answers in batch["answers"].to_list()]
    assert first == batch["targets_pretokenized"].numpy().tolist()
