"""Converts a checkpoint to Hugging Face's format, to T5X's, or to one that launch.train resumes.

    python -m launch.convert --from=MODEL_DIR --to=served --format=hugging_face --like=flan-t5-base

`--from` may be a Hugging Face directory, a T5X checkpoint (legacy or Orbax), one of po_jax, or a
directory of those, whose latest is taken. An adapter is merged into its base, but for
`--format=peft`, which writes the two files that PEFT puts on the base. Nothing is overwritten, what
was written is read back and compared, and the target appears only when it is whole.
"""

import argparse
from collections.abc import Sequence
import signal
import sys

from po_jax.checkpoints import convert
from po_jax.checkpoints.hugging_face_config import FAMILIES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", required=True, help="the checkpoint")
    parser.add_argument("--to", required=True, help="the directory to make")
    formats = (*convert.FORMATS, *convert.OF_ADAPTERS)
    parser.add_argument("--format", required=True, choices=formats)
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="kept if absent"
    )
    parser.add_argument("--like", help="a Hugging Face directory to take over all from but weights")
    parser.add_argument(
        "--family", choices=sorted(FAMILIES), help="by default as --like or the source"
    )
    parser.add_argument(
        "--activation", choices=("gelu", "silu", "relu"), help="of a T5X checkpoint: gelu"
    )
    parser.add_argument(
        "--vocabulary", help='spiece.model, tokenizer.json, a directory with one, or "bytes"'
    )
    parser.add_argument("--scanned", action="store_true", help="write T5X's stacked layers")
    parser.add_argument(
        "--slots", action="store_true", help="write Adafactor's slots too, and a moving average"
    )
    parser.add_argument("--dry_run", action="store_true", help="print what would go where")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    arguments = _parser().parse_args(argv)
    # What is half done is removed when a cluster ends the process, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    target = convert.Target(
        format=arguments.format,
        like=arguments.like,
        dtype=arguments.dtype,
        family=arguments.family,
        activation=arguments.activation,
        vocabulary=arguments.vocabulary,
        scanned=arguments.scanned,
        keep_slots=arguments.slots,
    )
    try:
        conversion = convert.plan(arguments.source, target)
        if arguments.dry_run:
            print(*conversion.lines(), sep="\n")
            return 0
        conversion.write(arguments.to)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"convert: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    size = sum(leaf.nbytes for leaf in conversion.parameters.values())
    print(
        f"{arguments.to}: {len(conversion.parameters)} arrays, {size / 1e6:.1f} MB, family "
        f"{conversion.family}; read back and equal."
    )
    if conversion.format == "hugging_face" and conversion.vocabulary is None:
        print("It has no tokenizer files: give --vocabulary or --like.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
