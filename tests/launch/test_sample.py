"""The real launcher completes prompts from the command line, a file and a task."""

import json

import gin
import jax.numpy as jnp
import pytest

from launch import sample
from po_jax.data import json_lines
from po_jax.evaluation.completions import Completion
from tasks import vocabularies
from tests.launch import tiny_policies

TEXTS = [f"Text number {i} says little." for i in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("sample")
    tiny_policies.write(where, {"policy": 1, "reference": 2})
    rows = [json.dumps({"prompt": text}) + "\n" for text in TEXTS]
    (where / "test.jsonl").write_text("".join(rows))
    yield where
    gin.clear_config()


@pytest.fixture
def arguments(folder, monkeypatch):
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(folder))
    return [
        f"--gin_file={folder / 'model.gin'}",
        "--gin_file=gin/runs/sample.gin",
        "--gin.MIXTURE_OR_TASK_NAME='jsonl_prompts'",
        "--gin.MIXTURE_OR_TASK_MODULE='tasks.jsonl'",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 6}",
        f"--gin.CHECKPOINT_PATH='{folder / 'policy'}'",
    ]


def run(arguments, folder):
    output = folder / "completions.jsonl"
    assert sample.main([*arguments, f"--output={output}", "--overwrite"]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_the_command_line_a_file_and_a_task_give_the_same(arguments, folder):
    from_task = run(arguments, folder)
    assert [row["prompt"] for row in from_task] == TEXTS
    assert run([*arguments, f"--prompts={folder / 'test.jsonl'}"], folder) == from_task
    (folder / "lines.txt").write_text("\n\n".join(TEXTS))
    assert run([*arguments, f"--prompts={folder / 'lines.txt'}"], folder) == from_task
    assert run([*arguments, *(f"--prompt={text}" for text in TEXTS)], folder) == from_task


SEPARATORS = "one\u2028two\u2029three\u0085four\x0bfive\rsix\nseven"


def test_what_was_written_can_be_read_as_prompts(tmp_path):
    """Every text is read as it was, empty completions beside it and all."""
    drawn = [(SEPARATORS, [Completion(text, -1.0, True)]) for text in (SEPARATORS, "", " ")]
    path = tmp_path / "completions.jsonl"
    json_lines.write(path, (row for one in drawn for row in sample.to_records(one)))
    assert sample.read_prompts(path) == [SEPARATORS] * 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.ndjson", "a.json"])
def test_json_lines_go_by_several_names(tmp_path, name):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    rows = [{"prompt": "a"}, {"prompt": messages}, {"chosen": "a b", "rejected": "a c"}]
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, rows)).encode())
    assert sample.read_prompts(tmp_path / name) == ["a", "system: s\nuser: u", "a"]


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028two\r\n\n three\x0b\u0085 \nfour".encode())
    assert sample.read_prompts(path) == ["one\u2028two", " three\x0b\u0085 ", "four"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"prompt": null}',
            "line 1: expected 'prompt' to be a string or a list of messages, got",
        ),
        (b'{"prompt": 5}', "line 1: expected 'prompt' to be a string or a list of messages, got 5"),
        (b'{"prompt": "a"}\n{"prompt": "b", "completion": 5}', "line 2: expected 'completion' to"),
        (b'{"prompt": "\\ud800"}', "line 1: expected JSON, got"),
        (b"", "got an empty file"),
        (b"[\n", "line 1: expected JSON, got"),
    ],
)
def test_a_bad_prompt_is_named(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"a.jsonl.*{message}"):
        sample.read_prompts(path)


def test_several_samples_and_their_logprobs(arguments, folder):
    rows = run([*arguments, f"--prompt={TEXTS[0]}", "--gin.SAMPLES=3"], folder)
    assert [row["prompt"] for row in rows] == [TEXTS[0]] * 3
    assert len({row["completion"] for row in rows}) == 3
    # An untrained policy is nearly uniform over the 8,192 pieces: at most log(8192) + 3 a token.
    assert all(-6 * (jnp.log(8192) + 3) < row["logprob"] < 0 for row in rows)


def test_all_weight_on_the_reference_draws_from_it(arguments, folder):
    reference = str(folder / "reference")
    mixture = [f"--gin.REFERENCE_CHECKPOINT_PATH='{reference}'", "--gin.BETA=1.0"]
    drawn = run([*arguments, *mixture], folder)
    alone = run([*arguments, f"--gin.CHECKPOINT_PATH='{reference}'"], folder)
    assert [row["completion"] for row in drawn] == [row["completion"] for row in alone]
    # What is reported is the policy's own log-probability.
    assert [row["logprob"] for row in drawn] != [row["logprob"] for row in alone]


def test_prints_for_people(arguments, capsys):
    assert sample.main([*arguments, f"--prompt={TEXTS[1]}"]) == 0
    prompt, completion, *_ = capsys.readouterr().out.splitlines()
    assert prompt == TEXTS[1]
    assert completion.startswith("  [ -")


def test_long_prompts_are_cut_and_counted(arguments, folder, caplog):
    long = " ".join(TEXTS)
    assert len(vocabularies.docstrings().encode(long)) > 16
    run([*arguments, f"--prompt={long}", f"--prompt={TEXTS[0]}"], folder)
    assert "1 of 2 prompts are longer than 16 tokens: cut" in caplog.text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--prompts=nowhere.txt"], "no file at nowhere.txt"),
        (["--prompts=broken.jsonl"], "broken.jsonl, line 2: expected the key 'prompt'"),
        (["--prompts=empty.txt"], "empty file"),
        (["--output=empty.txt"], "expected nothing at"),
        (["--output=."], "got the folder '.'"),
        (["--output=empty.txt/out.jsonl"], "got the file"),
        (["--prompt= "], "none of them empty"),
        (["--gin.BETA=0.5"], "got beta 0.5 and reference None"),
        (["--gin.SAMPLES=0"], "at least 1 sample, got 0"),
        (["--gin.CHECKPOINT_PATH='nowhere'"], "no such path"),
    ],
)
def test_mistakes_are_named(arguments, extra, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "empty.txt").write_text("\n")
    assert sample.main([*arguments, *extra]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
