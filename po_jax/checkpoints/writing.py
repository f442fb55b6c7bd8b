"""What writes a state, and tells of a failure at once.

Orbax tells when all processes have written, or after twenty minutes where one of them never will.
"""

from collections.abc import Callable
from typing import Any

from etils import epath
import orbax.checkpoint as ocp

Failed = Callable[[Exception], None]


def temporary_path(directory: epath.Path, failed: Failed) -> type:
    """Orbax's class of folders that checkpoints are written in until they are whole.

    Args:
      directory: of the checkpoints.
      failed: told why a folder cannot be given its name, which its process alone would know.
    """
    default = ocp.path.atomicity_defaults.get_default_temporary_path_class(directory)

    class Heard(default):  # type: ignore[misc, valid-type]
        async def finalize(self) -> None:
            try:
                await super().finalize()
            except Exception as error:
                failed(error)
                raise

    return Heard


def state_writer(failed: Failed) -> ocp.StandardCheckpointHandler:
    """Orbax's writer and reader of states.

    Args:
      failed: told what fails in the background, from there.
    """
    writer = ocp.StandardCheckpointHandler()
    begin, unite = writer.async_save, writer.finalize

    async def async_save(*args: Any, **kwargs: Any) -> list[Any]:
        return [_Heard(future, failed) for future in await begin(*args, **kwargs) or ()]

    def finalize(directory: Any) -> None:
        try:
            unite(directory)
        except Exception as error:
            failed(error)
            raise

    # Orbax knows its writers by their class, and names it in what they write: it stays.
    writer.async_save = async_save  # type: ignore[method-assign]
    writer.finalize = finalize  # type: ignore[method-assign]
    return writer


class _Heard:
    """A future that tells when it has failed."""

    def __init__(self, future: Any, failed: Failed):
        self._future, self._failed = future, failed

    def result(self, timeout: float | None = None) -> Any:
        try:
            return self._future.result(timeout)
        except Exception as error:
            self._failed(error)
            raise

    def cancel(self) -> bool | None:
        return self._future.cancel()
