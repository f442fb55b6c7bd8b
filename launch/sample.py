"""Completes prompts given on the command line, in a file, or by a task.

    python -m launch.sample \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/sample.gin \\
      --gin.CHECKPOINT_PATH=runs/ipo_md ... --prompt="summarize: ..."

With no prompt given, prompts come from the task.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
import io
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

from launch import command_line, gin_support, outputs

if TYPE_CHECKING:
    from po_jax.evaluation.completions import Completion

Drawn = tuple[str, Sequence["Completion"]]  # a prompt and its completions


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file; a name that ends in .jsonl, .ndjson or .json says that it holds JSON
    lines.

    Raises:
      ValueError: if there is no such file, it holds no prompt, or a line of it is no object with
        "prompt".
    """
    from po_jax.data import json_lines, records

    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        found = [records.prompt(row, where)["inputs"] for where, row in json_lines.read(path)]
    else:
        found = [line for _, line in json_lines.lines(path)]
    if not found:
        raise ValueError(f"expected prompts in {path}, got an empty file")
    return found


def draw(texts: Sequence[str]) -> list[Drawn]:
    """Prompts, those of the configured task if none are given, and their completions."""
    from po_jax.evaluation import completions, prompts

    completer = gin_support.call(completions.Completer)
    if texts:
        return list(zip(texts, completer.of_texts(texts), strict=True))
    asked = gin_support.call(prompts.gather)
    return list(zip(asked.inputs, completer.of_tokens(asked.tokens), strict=True))


def show(drawn: Drawn) -> str:
    """A prompt and its completions, for people."""
    prompt, completions = drawn
    lines = [f"  [{completion.logprob:z7.2f}]  {completion.text}" for completion in completions]
    return "\n".join([prompt, *lines, ""])


def to_records(drawn: Drawn) -> Iterator[dict[str, Any]]:
    """An object for each completion, for programs."""
    prompt, completions = drawn
    for completion in completions:
        yield {
            "prompt": prompt,
            "completion": completion.text,
            "logprob": completion.logprob,
            "completion_ended": completion.ended,
        }


def sample(arguments: Namespace) -> None:
    """Prints completions, or writes them to a file."""
    from launch import settings
    from po_jax import processes
    from po_jax.data import json_lines

    output = arguments.output
    if output is not None:
        output = outputs.new_file(output, arguments.overwrite)
    texts = arguments.prompt + (read_prompts(arguments.prompts) if arguments.prompts else [])
    gin_support.call(settings.check_checkpoints)
    drawn = draw(texts)
    if processes.index() > 0:
        return
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # A terminal may know few characters.
            sys.stdout.reconfigure(errors="backslashreplace")
        print("\n".join(map(show, drawn)))
    else:
        json_lines.write(output, (row for one in drawn for row in to_records(one)))


def _options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--prompt", action="append", default=[], metavar="TEXT", help="repeatable")
    add("--prompts", type=Path, metavar="FILE", help='JSON lines with "prompt", or a prompt a line')
    add("--output", metavar="FILE", help="JSON lines, in place of printing")
    command_line.overwrite(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return gin_support.run(sample, argv, __doc__, runs=["gin/runs/sample.gin"], options=_options)


if __name__ == "__main__":
    sys.exit(main())
