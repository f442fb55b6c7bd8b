"""Nine algorithms through the real loop, on games whose exact answers the lab knows.

    python -m tests.benchmarks.exact_trainer [NAME ...]

prints a table: how far, in total variation, the reference was from the exact answer and how far
the trained policy is. On two cores it takes about five minutes.
"""

from pathlib import Path
import sys
import tempfile
import time

from tests.game import exact_run


def main(names: list[str]) -> None:
    """Runs the algorithms of these names, or all of them."""
    print("| algorithm | at the start | at the end | says what no data shows | seconds |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        reference = exact_run.fit_reference(Path(scratch) / "reference")
        for number, name in enumerate(names or exact_run.ALGORITHMS):
            began = time.monotonic()
            outcome = exact_run.train(
                exact_run.ALGORITHMS[name],
                reference,
                Path(scratch) / str(number),
                steps=1000,
                batch_size=256,
                learning_rate=3e-3,
            )
            print(
                f"| {name} | {outcome.start:.3f} | {outcome.end:.1e} | {outcome.unshown:.1e} "
                f"| {time.monotonic() - began:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
