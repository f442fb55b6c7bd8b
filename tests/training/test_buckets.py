"""A run whose files all lie in a bucket is the run that it is on a disk."""

import json

import jax
import numpy as np
import pytest

from po_jax import files
from po_jax.checkpoints.load import open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager
from tests import buckets
from tests.training import small_run

STEPS = 4


@pytest.mark.slow
def test_begun_and_resumed_in_a_bucket(tmp_path):
    expected = small_run.offline_ipo(tmp_path, STEPS)
    with buckets.in_memory():
        folder = files.absolute("gs://bucket/runs/ipo")
        small_run.offline_ipo(folder, 2)
        found = small_run.offline_ipo(folder, STEPS)
        assert small_run.records(folder) == small_run.records(tmp_path)
        made_from = json.loads((folder / "made_from.json").read_text())
        assert made_from == json.loads((tmp_path / "made_from.json").read_text())
        saved = open_checkpoint(folder)
        assert str(saved.path) == f"gs://bucket/runs/ipo/checkpoint_{STEPS}"
        assert saved.about.kind == "a policy"
        scale = saved.parameters["encoder/encoder_norm/scale"].value()
        left = [path for path in buckets.Buckets.store if "partial" in path or "tmp" in path]
        assert (folder / "reference_logprobs.npz").exists() and not left
    np.testing.assert_array_equal(scale, expected.params["encoder"]["encoder_norm"]["scale"])
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def test_what_orbax_needs_for_a_bucket_is_said(monkeypatch):
    with buckets.in_memory(), monkeypatch.context() as patch:
        patch.setattr(buckets.gcs_utils, "is_hierarchical_namespace_enabled", _without_storage)
        with pytest.raises(ValueError, match=r"gs://bucket/run: expected the extra po_jax\[gcs\]"):
            CheckpointManager("gs://bucket/run")


def _without_storage(_):
    raise ImportError("cannot import name 'storage' from 'google.cloud'")
