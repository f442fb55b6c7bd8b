"""Completes prompts given on the command line, in a file, or by a task.

    python -m launch.sample \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/sample.gin \\
      --gin.CHECKPOINT_PATH="'runs/ipo_md'" ... --prompt="summarize: ..."

--prompt TEXT may be repeated. --prompts FILE reads JSON lines with "prompt", or plain text with a
prompt on each line. With neither, prompts come from the task. --output FILE writes JSON lines with
"prompt", "completion" and "logprob", instead of printing.
"""

import argparse
from collections.abc import Iterator, Sequence
import logging
from pathlib import Path
import sys
from typing import Any

import gin

from launch import gin_support
from po_jax.data import json_lines
from po_jax.evaluation import completions, prompts
from po_jax.evaluation.completions import Completion
from tasks import records


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file; a name that ends in .jsonl says that it holds JSON lines.

    Raises:
      ValueError: if there is no such file, or a line of it is no object with "prompt".
    """
    if path.suffix == ".jsonl":
        return [records.text(record, "prompt", where) for where, record in json_lines.read(path)]
    return [line for _, line in json_lines.lines(path)]


def sample(texts: Sequence[str]) -> list[tuple[str, list[Completion]]]:
    """Prompts, those of the configured task if none are given, and their completions."""
    completer = gin.get_configurable(completions.Completer)()
    if texts:
        return list(zip(texts, completer.of_texts(texts), strict=True))
    asked = gin.get_configurable(prompts.gather)()
    return list(zip(asked.inputs, completer.of_tokens(asked.tokens), strict=True))


def show(prompt: str, drawn: Sequence[Completion]) -> str:
    """A prompt and its completions, for people."""
    lines = [f"  [{completion.logprob:7.2f}]  {completion.text}" for completion in drawn]
    return "\n".join([prompt, *lines, ""])


def to_records(prompt: str, drawn: Sequence[Completion]) -> Iterator[dict[str, Any]]:
    """An object for each completion, for programs."""
    for completion in drawn:
        yield {"prompt": prompt, "completion": completion.text, "logprob": completion.logprob}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    # Help is left to the parser of the rest, whose description is this module's.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--prompt", action="append", default=[])
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--output", type=Path)
    arguments, rest = parser.parse_known_args(argv)
    try:
        gin_support.parse(rest, __doc__)
        texts = arguments.prompt + (read_prompts(arguments.prompts) if arguments.prompts else [])
        if arguments.prompts and not texts:
            raise ValueError(f"expected prompts in {arguments.prompts}, got an empty file")
        drawn = sample(texts)
    except ValueError as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.output is None:
        print("\n".join(show(*row) for row in drawn))
    else:
        rows = (record for row in drawn for record in to_records(*row))
        json_lines.write(arguments.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
