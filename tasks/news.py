"""News articles and their summaries through TensorFlow Datasets.

Nothing is downloaded here: prepare a data set once with `tfds build NAME`. TFDS_DATA_DIR, or
`seqio.set_tfds_data_dir_override`, says where it lies.
"""

from typing import Any

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from tasks import registration, vocabularies


def register(name: str, tfds_name: str, document: str, summary: str) -> None:
    """Registers NAME_sft and NAME_prompts on two text fields of a data set of TFDS."""
    source = _Prepared(tfds_name, splits=registration.SPLITS, read_only=True)
    vocabulary = vocabularies.from_environment()

    @seqio.map_over_dataset
    def demonstration(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            "inputs": tf.strings.join(["summarize: ", example[document]]),
            "targets": example[summary],
            "answers": example[summary][tf.newaxis],
        }

    registration.add_sft(f"{name}_sft", source, vocabulary, [demonstration])
    registration.add_prompts(f"{name}_prompts", source, vocabulary, [demonstration])


class _Prepared(seqio.TfdsDataSource):
    """A data set that lies on disk; where it does not, it is said how to get it."""

    def get_dataset(self, *args: Any, **kwargs: Any) -> tf.data.Dataset:
        """The examples of a split.

        Raises:
          ValueError: the data set was not prepared, or TFDS does not know it.
        """
        try:
            return super().get_dataset(*args, **kwargs)
        except (AssertionError, tfds.core.DatasetNotFoundError) as error:
            raise ValueError(
                f"expected {self.tfds_dataset.name} on disk, got: {_first_sentence(error)}. "
                f"`tfds build {self.tfds_dataset.name}` makes it; TFDS_DATA_DIR says where it is"
            ) from error


def _first_sentence(error: Exception) -> str:
    """TFDS goes on with all data sets that it knows."""
    return str(error).partition("\n")[0].partition(". ")[0]
