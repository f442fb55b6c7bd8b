"""The writer of Weights & Biases; its package `wandb` is the optional extra of the same name."""

from collections.abc import Mapping
import html
import uuid

from etils import epath

from po_jax import files
from po_jax.reporting.writers import Folder


class WeightsAndBiases:
    """Logs to one run of Weights & Biases, however often the run of training is resumed.

    The run's id is kept in the directory's file `wandb_id`. Numbers are named "<split>/<name>",
    texts "<name>/text". wandb's own settings, such as `WANDB_MODE=offline`, come from the
    environment. Weights & Biases cannot forget: steps taken once more after a kill are shown twice.
    Offline, wandb writes blocks of 32 KiB, and a kill loses the one that it was filling.

    Args:
      directory: of the run, and of wandb's own files; made if absent. Where it is a bucket, wandb
        keeps its files where it does by default, or where `WANDB_DIR` says.
      step: that the run goes on from; not needed here.
      project: to file the run under.
      entity: user or team it belongs to; None for the user's default.
      name: of the run on the page; None for the directory's.

    Raises:
      ValueError: if wandb is not installed.
    """

    def __init__(
        self,
        directory: Folder,
        step: int | None = None,
        *,
        project: str = "po_jax",
        entity: str | None = None,
        name: str | None = None,
    ):
        del step
        try:
            import wandb
        except ImportError as error:
            raise ValueError(
                "WeightsAndBiases: expected the package wandb, got none: "
                "install po_jax[wandb], or leave this writer out"
            ) from error
        folder = files.absolute(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._html = wandb.Html
        self._run = wandb.init(
            project=project,
            entity=entity,
            name=name or folder.name,
            id=_run_id(folder / "wandb_id"),
            resume="allow",
            dir=None if files.in_bucket(folder) else str(folder),
            reinit="create_new",  # another run of this process is left alone
        )
        # wandb's own step only grows, and drops records of a lower one; ours is an axis beside it.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Logs all numbers at once."""
        numbers = {f"{split}/{name}": float(value) for name, value in values.items()}
        self._run.log({"step": step, **numbers})

    def text(self, step: int, name: str, text: str) -> None:
        """Logs the text as it is; Weights & Biases does not lay out Markdown."""
        self._run.log({"step": step, f"{name}/text": self._html(f"<pre>{html.escape(text)}</pre>")})


def _run_id(path: epath.Path) -> str:
    """The id in the file, or a new one, then kept there."""
    if not path.exists():
        path.write_text(uuid.uuid4().hex)
    return path.read_text()
