"""The converter as its user meets it: what it prints, writes, refuses and leaves behind."""

import json
import os

from etils import epath
import jax
import numpy as np
import pytest

from launch import convert as program
from po_jax.checkpoints import convert, safetensors, t5x_legacy
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.directories import new_directory
from po_jax.checkpoints.load import open_checkpoint


def run(capsys, *arguments):
    status = program.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def assert_parameters(path, small, dtype=np.float32):
    parameters = open_checkpoint(path).parameters
    assert set(parameters) == set(small.params)
    for name, value in small.params.items():
        np.testing.assert_array_equal(parameters[name].value(), value.astype(dtype), name)


def test_round_trip_on_the_command_line(small, tmp_path, capsys):
    t5x, back = tmp_path / "t5x", tmp_path / "back"
    status, out, _ = run(capsys, "--from", small.directory, "--to", t5x, "--format", "t5x")
    assert status == 0 and "38 arrays" in out and "read back and equal" in out
    assert_parameters(t5x, small)
    options = ("--format", "hugging_face", "--vocabulary", "bytes", "--dtype", "bfloat16")
    status, out, err = run(capsys, "--from", t5x, "--to", back, *options)
    assert status == 1 and "expected at most 48 ids" in err  # 384 bytes and sentinels do not fit
    status, out, _ = run(capsys, "--from", t5x, "--to", back, *options[:2], *options[4:])
    assert status == 0 and "no tokenizer files: give --vocabulary" in out
    assert_parameters(back, small, jax.numpy.bfloat16)
    config = json.loads((back / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16" and config["model_type"] == "t5"
    assert open_checkpoint(back).config == small.config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "t5x"]


def test_to_a_folder_that_our_loop_goes_on_from(small, tmp_path):
    convert.plan(small.directory, Target(format="po_jax")).write(tmp_path / "run")
    assert_parameters(tmp_path / "run", small)
    assert (tmp_path / "run" / "checkpoint_0" / "state").is_dir()


def test_dry_run_prints_the_mapping_and_writes_nothing(small, tmp_path, capsys):
    options = ("--format", "t5x", "--scanned", "--dtype", "bfloat16", "--dry_run")
    status, out, _ = run(capsys, "--from", small.directory, "--to", tmp_path / "out", *options)
    lines = out.splitlines()
    assert status == 0 and len(lines) == 29 and not list(tmp_path.iterdir())
    assert any(
        line.startswith("encoder/encoder/attention/query/kernel (14, 2, 2, 5) bfloat16 <- ")
        and line.endswith("model.safetensors: encoder.block.0.layer.0.SelfAttention.q.weight")
        for line in lines
    )


def test_nothing_is_overwritten(small, tmp_path, capsys):
    target = tmp_path / "out"
    target.mkdir()
    status, _, err = run(capsys, "--from", small.directory, "--to", target, "--format", "t5x")
    assert status == 1 and "out: expected a path that does not exist" in err
    assert list(tmp_path.iterdir()) == [target] and not list(target.iterdir())


@pytest.mark.parametrize("format", convert.FORMATS)
def test_a_failure_leaves_nothing_behind(small, tmp_path, format):
    source = tmp_path / "source"
    convert.plan(small.directory, Target(format="t5x")).write(source)
    conversion = convert.plan(source, Target(format=format))
    chunk = source / "target.decoder.layers_0.mlp.wo.kernel" / "0.0"
    os.truncate(chunk, 40)  # damaged after it was opened
    with pytest.raises(ValueError, match="decoder.layers_0.mlp.wo.kernel: expected a readable"):
        conversion.write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_a_writer_that_lies_is_caught(small, tmp_path, monkeypatch):
    write = t5x_legacy.write

    def careless(directory, parameters, **options):
        parameters = dict(parameters)
        scale = "encoder/encoder_norm/scale"
        parameters[scale] = parameters["decoder/decoder_norm/scale"]
        write(directory, parameters, **options)

    monkeypatch.setattr(t5x_legacy, "write", careless)
    with pytest.raises(ValueError, match="encoder_norm.scale: expected the values of .* when read"):
        convert.plan(small.directory, Target(format="t5x")).write(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_half_precision_that_overflows_is_refused(small, tmp_path, capsys):
    source = epath.Path(tmp_path) / "large"
    source.mkdir()
    (small.directory / "config.json").copy(source / "config.json")
    tensors = dict(safetensors.read(small.directory))
    name = "encoder.block.1.layer.1.DenseReluDense.wo.weight"
    large = tensors[name].value() * 1e5
    tensors[name] = tensors[name].__class__(
        large.shape, large.dtype, name, lambda block: large[block]
    )
    safetensors.write(source, tensors)
    options = ("--from", source, "--to", tmp_path / "out", "--format", "hugging_face", "--dtype")
    status, _, err = run(capsys, *options, "float16")
    assert status == 1 and f"{name}: expected values that fit float16" in err
    assert list(tmp_path.iterdir()) == [tmp_path / "large"]
    assert run(capsys, *options, "bfloat16")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(format="hugging_face", scanned=True), "target of format t5x"),
        (dict(format="t5x", keep_slots=True), "expected Adafactor's slots to keep"),
        (
            dict(format="t5x", like="nowhere"),
            "nowhere: expected a Hugging Face directory .* no such",
        ),
    ],
)
def test_options_that_do_not_fit(small, options, message):
    with pytest.raises(ValueError, match=message):
        convert.plan(small.directory, Target(**options))


def test_families_hold_what_they_can(small, tmp_path):
    convert.plan(small.directory, Target(format="t5x", scanned=True)).write(tmp_path / "stacked")
    options = dict(format="hugging_face", family="umt5", like=small.directory)
    as_umt5 = convert.plan(tmp_path / "stacked", Target(**options))
    assert not as_umt5.config.shared_relative_bias
    as_umt5.write(tmp_path / "umt5")
    assert open_checkpoint(tmp_path / "umt5").family == "umt5"
    with pytest.raises(ValueError, match="expected stacked layers"):
        convert.plan(tmp_path / "umt5", Target(format="t5x"))
    convert.plan(tmp_path / "umt5", Target(format="t5x", scanned=True)).write(tmp_path / "again")


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with new_directory(tmp_path / "whole") as directory:
        (directory / "file").write_text("x")
        assert not (tmp_path / "whole").exists()
    assert (tmp_path / "whole" / "file").exists()
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "half") as directory:
        (directory / "file").write_text("x")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
