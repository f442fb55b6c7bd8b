"""News articles and their summaries through TensorFlow Datasets.

Nothing is downloaded here: prepare a data set once with `tfds build NAME`. TFDS_DATA_DIR, or
`seqio.set_tfds_data_dir_override`, says where it lies.
"""

import seqio
import tensorflow as tf

from tasks import registration, vocabularies


def register(name: str, tfds_name: str, document: str, summary: str) -> None:
    """Registers NAME_sft and NAME_prompts on two text fields of a data set of TFDS."""
    source = seqio.TfdsDataSource(tfds_name, splits=registration.SPLITS, read_only=True)
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
