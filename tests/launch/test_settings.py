"""What gin files build of seqio tasks, where it cannot be built."""

import gin
from jax.sharding import PartitionSpec as P
import pytest
import seqio

from launch import gin_support, settings
from po_jax.data.layouts import Comparisons, Prompts, Supervised
from po_jax.partitioning import make_partitioner
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from tests.test_partitioning import Slices


@pytest.fixture
def task():
    """A task of bytes: 259 ids."""
    name = "settings_test_bytes"
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: None, splits=["train"]
        ),
        output_features={"inputs": seqio.Feature(seqio.ByteVocabulary())},
    )
    yield name
    seqio.TaskRegistry.remove(name)


def test_a_vocabulary_larger_than_the_embedding_is_refused(task):
    model = T5LM(T5Config(vocab_size=100))
    layout = Prompts(lengths={"inputs": 8})
    with pytest.raises(ValueError, match="at most 100 ids, .* got 259"):
        settings.batch_stream(task, "train", layout, 2, model)


def test_a_task_that_is_not_there_or_cannot_be_read_is_named(task):
    with pytest.raises(ValueError, match="no task 'settings_test_byte' .*: settings_test_bytes"):
        settings.vocabulary("settings_test_byte")
    name = f"{task}_without_inputs"
    source = seqio.TaskRegistry.get(task).source
    features = {"text": seqio.Feature(seqio.ByteVocabulary())}
    seqio.TaskRegistry.add(name, source=source, output_features=features)
    with pytest.raises(ValueError, match="with .'inputs'., got only .'text'."):
        settings.vocabulary(name)
    seqio.TaskRegistry.remove(name)


@pytest.mark.parametrize("length", [settings.prompt_length, settings.completion_length])
def test_lengths_that_are_not_given_are_named(length):
    with pytest.raises(ValueError, match="expected a length of '(inputs|targets)', 1 or more, got"):
        length({"input": 8})


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="to name a module, got 'tasks.nowhere'"):
        settings.vocabulary("x", "tasks.nowhere")


@pytest.mark.parametrize("keep_end", [True, False])
def test_the_end_of_prompts_is_kept_by_all_that_cut_them_or_by_none(keep_end):
    gin_support.configure(
        ["gin/models/t5_1_1/small.gin", "gin/runs/sample.gin"],
        [
            f"KEEP_END={keep_end}",
            "TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 4}",
            "MIXTURE_OR_TASK_NAME=x",
            "MIXTURE_OR_TASK_MODULE=x",
            "CHECKPOINT_PATH=x",
        ],
    )
    made = [gin_support.call(layout) for layout in (Prompts, Supervised, Comparisons)]
    assert [layout.keep_end for layout in made] == [keep_end] * 3
    assert gin.query_parameter("Completer.keep_end") == gin.query_parameter("Prompts.keep_end")
    gin.clear_config()


@pytest.mark.parametrize(
    ("across_slices", "axes"), [("False", "data"), ("True", ("slice", "data"))]
)
def test_a_run_spreads_its_parameters_within_slices_or_over_all(across_slices, axes):
    name = "partitioning.make_partitioner"
    gin_support.configure(
        ["gin/models/t5_1_1/small.gin", "gin/runs/sft.gin"],
        ["NUM_PARTITIONS=2", f"{name}.parameter_dims=2", f"{name}.across_slices={across_slices}"]
        + [f"{must}=x" for must in ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "MIXTURE_OR_TASK_MODULE")]
        + ["TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 4}", "TRAIN_STEPS=1"],
    )
    devices = [Slices(index) for index in range(8)]
    made = gin.get_configurable(make_partitioner)(devices=devices)
    assert made.sharding((8, 16), ("embed", "mlp")).spec == P(axes, "model")
    gin.clear_config()
