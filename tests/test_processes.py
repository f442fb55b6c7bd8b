"""Two real processes are as one; and what one process does alone where there could be several."""

import json
import signal

import jax
import pytest

from launch import processes as together
from po_jax import processes
from po_jax.partitioning import make_partitioner
from tests.distributed import cluster, runs, same

NAME = "ipo_md_python"  # rows in and out, a judge's rows, decisions, records and checkpoints


def test_two_processes_of_two_devices_make_the_run_of_one(tmp_path, monkeypatch):
    """Four devices, two for each copy of the model: here as one process, there as two."""
    several = tmp_path / "several"
    command = ["tests.distributed.runs", str(several), "2", NAME]
    started = cluster.start(command, (2, 2, 2), several / "logs")
    here = make_partitioner(2, devices=jax.devices()[:4])
    monkeypatch.setattr(runs, "partitioner", lambda: here)
    try:
        (tmp_path / NAME).mkdir()
        runs.RUNS[NAME](tmp_path / NAME, 2)
    finally:
        statuses = cluster.end(started, 240.0)
    assert statuses == [0, 0], "\n".join(cluster.consoles(several / "logs"))
    same.assert_same(several / NAME, tmp_path / NAME)


def test_one_process_has_all_and_asks_nobody():
    assert (processes.index(), processes.count()) == (0, 1)
    assert processes.own([5, 7, 9]) == [5, 7, 9]
    assert processes.gathered(lambda: (5, 7)) == [5, 7]
    assert processes.met("anywhere", "for no reason", within=0.0)
    processes.alike({"anything": object()})
    with pytest.raises(ZeroDivisionError):
        processes.gathered(lambda: [1 / 0])


def test_results_come_back_in_the_order_of_the_items(monkeypatch):
    items = list(range(7))
    parts = []
    for index in range(3):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        parts.append(processes.own(items))
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    texts = [f'{{"results": {part}}}' for part in parts]
    monkeypatch.setattr("po_jax.processes.talk.exchange", lambda folder, text: texts)
    monkeypatch.setattr("po_jax.processes.talk.forget", lambda folder: None)
    assert processes.gathered(lambda: parts[2]) == items
    texts[1] = '{"failed": "no key"}'
    with pytest.raises(processes.Elsewhere, match="process 1: no key"):
        processes.gathered(lambda: parts[2])
    texts[0] = '{"stopped": "SIGTERM on process 0"}'
    with pytest.raises(processes.Elsewhere):  # a failure tells more
        processes.gathered(lambda: parts[2])
    texts[1] = f'{{"results": {parts[1]}}}'
    with pytest.raises(processes.Interrupted, match="SIGTERM on process 0"):
        processes.gathered(lambda: parts[2])


def test_the_first_that_differs_is_named_with_both_values(monkeypatch):
    facts = {"seed": 1, "model": {"layers": [3, 5]}}
    third = {"seed": 1, "model": {"layers": [3, 7]}, "more": 2}
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    found = [json.dumps({"results": [fact]}) for fact in (facts, facts, third)]
    monkeypatch.setattr("po_jax.processes.talk.exchange", lambda folder, text: found)
    monkeypatch.setattr("po_jax.processes.talk.forget", lambda folder: None)
    with pytest.raises(
        ValueError, match=r"model.layers.1 .* got 5 on process 0 and 7 on process 2"
    ):
        processes.alike(facts)
    found[2] = json.dumps({"results": [{**facts, "more": 2}]})
    with pytest.raises(ValueError, match="more .* got None on process 0 and 2 on process 2"):
        processes.alike(facts)
    found[2] = found[0]
    processes.alike(facts)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PO_JAX_NUM_PROCESSES": "2"}, "expected PO_JAX_COORDINATOR=HOST:PORT beside"),
        ({"PO_JAX_COORDINATOR": "here"}, "HOST:PORT or auto, got 'here'"),
        ({"PO_JAX_COORDINATOR": ":8476"}, "HOST:PORT or auto, got ':8476'"),
        ({"PO_JAX_COORDINATOR": "here:847600"}, "HOST:PORT or auto, got 'here:847600'"),
        ({"PO_JAX_NUM_PROCESSES": "two"}, "a whole number from 1, got 'two'"),
        ({"PO_JAX_WAIT_SECONDS": "0"}, "a whole number from 1, got '0'"),
        ({"PO_JAX_WATCHDOG_MINUTES": "-1"}, "minutes, 0 for none, got '-1'"),
        (
            {
                "PO_JAX_COORDINATOR": "a:1",
                "PO_JAX_NUM_PROCESSES": "2",
                "PO_JAX_PROCESS_ID": "2",
            },
            "less than PO_JAX_NUM_PROCESSES, 2, got 2",
        ),
    ],
)
def test_a_wrong_environment_is_refused(variables, message):
    with pytest.raises(ValueError, match=message):
        together.start(variables)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_STEP_NUM_TASKS": "2"},
        {"TPU_WORKER_HOSTNAMES": "host0,host1"},
        {"TPU_WORKER_HOSTNAMES": "host0", "MEGASCALE_NUM_SLICES": "2"},
        {"PO_JAX_COORDINATOR": "auto"},
    ],
)
def test_jax_finds_out_what_a_cluster_says(variables, monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *told, **how: asked.append(told))
    monkeypatch.setattr(together, "_joined", False)  # and so again afterwards
    before = signal.getsignal(signal.SIGTERM)
    together.start(variables)
    signal.signal(signal.SIGTERM, before)
    assert asked == [(None, None, None)]


def test_nothing_is_started_where_nobody_else_is():
    together.start({"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"})
    assert not jax.distributed.is_initialized()
