"""Completes prompts given on the command line, in a file, or by a task.

    python -m launch.sample \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/sample.gin \\
      --gin.CHECKPOINT_PATH="'runs/ipo_md'" ... --prompt="summarize: ..."

--prompt TEXT may be repeated. --prompts FILE reads JSON lines with "prompt", or plain text with a
prompt on each line. With neither, prompts come from the task. --output FILE writes JSON lines with
"prompt", "completion" and "logprob", instead of printing.
"""

import argparse
from collections.abc import Sequence
import json
import logging
from pathlib import Path
import sys

import gin

from launch import gin_support
from po_jax.evaluation import completions, side_by_side
from po_jax.evaluation.completions import Completion


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file; a name that ends in .jsonl says that it holds JSON lines.

    Raises:
      ValueError: if there is no such file, or a line of it is no object with "prompt".
    """
    if not path.is_file():
        raise ValueError(f"expected a file of prompts, got no file at {path}")
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix != ".jsonl":
        return [line for line in lines if line.strip()]
    return [_prompt(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line]


def _prompt(line: str, where: str) -> str:
    try:
        return json.loads(line)["prompt"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{where}: expected {{"prompt": "..."}}, got {line[:60]!r}') from error


def sample(texts: Sequence[str]) -> list[tuple[str, list[Completion]]]:
    """Prompts, those of the configured task if none are given, and their completions."""
    if texts:
        tokens = gin.get_configurable(completions.encode)(texts)
    else:
        held_out = gin.get_configurable(side_by_side.gather)()
        texts, tokens = held_out.texts, held_out.tokens
    drawn = gin.get_configurable(completions.complete)(tokens)
    return list(zip(texts, drawn, strict=True))


def show(prompt: str, drawn: Sequence[Completion]) -> str:
    """A prompt and its completions, for people."""
    lines = [f"  [{completion.logprob:7.2f}]  {completion.text}" for completion in drawn]
    return "\n".join([prompt, *lines, ""])


def json_lines(prompt: str, drawn: Sequence[Completion]) -> str:
    """A line a completion, for programs."""
    rows = ({"prompt": prompt, "completion": x.text, "logprob": x.logprob} for x in drawn)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


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
        arguments.output.write_text("".join(json_lines(*row) for row in drawn), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
