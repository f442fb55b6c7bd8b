"""The chips that a run can be planned for: what their makers publish, and their topologies.

Sources: TPUs, the pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" of
https://docs.cloud.google.com/tpu/docs; GPUs, the data sheets "NVIDIA H100" and "NVIDIA H200"
(SXM), without sparsity. Read in November 2026.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from po_jax.names import nearest

GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip's published figures.

    Attributes:
      maker: makes the devices of a topology, to compile for.
      flops: products and sums of bfloat16 a second, dense.
      memory: bytes that a program can have.
      bandwidth: bytes a second between chip and memory.
      interconnect: bytes a second that a chip sends while all chips of a group exchange; on a TPU,
        by both directions of one ring of its torus.
      network: bytes a second a chip between slices, or between hosts of GPUs.
      about: what a GPU's compiler would else ask the GPU; empty for other chips.
    """

    maker: Callable[[Any], Sequence[Any]]
    flops: float
    memory: float
    bandwidth: float
    interconnect: float
    network: float
    about: str = ""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips and how they hang together, such as `v5p:4x4x4` or `h100:8`.

    Attributes:
      name: of the chip.
      shape: chips along each axis of the torus; of GPUs, hosts and GPUs of a host.
      slices: of this shape each, joined by the network.
    """

    name: str
    shape: tuple[int, ...]
    slices: int = 1

    @classmethod
    def parse(cls, text: str, slices: int = 1) -> "Topology":
        """The topology of a name such as `v5e:4x4`.

        Raises:
          ValueError: if it is no such name, or of no chip that is known.
        """
        found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
        name = found[1] if found else text.split(":")[0]
        if name not in CHIPS:
            raise ValueError(
                f"expected a topology of one of {', '.join(CHIPS)}, got {text!r}."
                f"{nearest(name, CHIPS)}"
            )
        if not found or slices < 1:
            raise ValueError(
                f"expected a topology such as v5p:4x4x4, v5e:4x4, h100:8 or cpu:2, got {text!r}"
            )
        return cls(name, tuple(int(size) for size in found[2].split("x")), slices)

    def __str__(self) -> str:
        one = f"{self.name}:{'x'.join(map(str, self.shape))}"
        return one if self.slices == 1 else f"{self.slices} slices of {one}"

    @property
    def chip(self) -> Chip:
        return CHIPS[self.name]

    @property
    def chips(self) -> int:
        """How many there are in all."""
        return math.prod(self.shape) * self.slices

    @property
    def islands(self) -> int:
        """Groups of chips that only the network joins: slices, or hosts of GPUs."""
        return self.slices * (self.shape[0] if self.chip.about and len(self.shape) > 1 else 1)

    def devices(self) -> list[Any]:
        """Devices to compile for; nothing can run on them, but for a CPU's.

        Raises:
          ValueError: if the compiler is not installed, or does not know the shape.
        """
        return list(self.chip.maker(self))


def _tpu(topology: Topology) -> Sequence[Any]:
    """A TPU's compiler is in libtpu, which looks for a TPU unless it is told not to."""
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"{topology}: expected libtpu, which compiles for TPUs on any machine, got none: "
            "pip install 'po_jax[plan]'"
        )
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5p-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LOG_DIR": "disabled",
        "TPU_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(name, value)
    several = {"num_slices": topology.slices} if topology.slices > 1 else {}
    name = f"{topology.name}:{'x'.join(map(str, topology.shape))}"
    try:
        return topologies.get_topology_desc(name, platform="tpu", **several).devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"{topology}: libtpu knows no such shape: {error}") from error


def _gpu(topology: Topology) -> Sequence[Any]:
    """A GPU's compiler is in JAX's CUDA plugin; it needs no driver."""
    plugin = next((name for name in ("xla_cuda13", "xla_cuda12") if _has_plugin(name)), None)
    if plugin is None:
        raise ValueError(
            f"{topology}: expected JAX's CUDA plugin, which compiles for GPUs on any machine, got "
            "none: pip install 'po_jax[plan]'"
        )
    hosts, of_a_host = (1, *topology.shape)[-2:]
    if len(topology.shape) > 2:
        raise ValueError(f"{topology}: expected GPUs as h100:8, or as hosts x GPUs, h100:4x8")
    return topologies.get_topology_desc(
        topology.name,
        platform="cuda",
        target_config=topology.chip.about,
        topology=f"{topology.slices}x{hosts}x{of_a_host}",
    ).devices


def _has_plugin(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"jax_plugins.{name}") is not None
    except ModuleNotFoundError:
        return False


def _cpu(topology: Topology) -> Sequence[Any]:
    """The devices of this process."""
    with contextlib.suppress(RuntimeError):  # they have been counted already
        jax.config.update("jax_num_cpu_devices", topology.chips)
    devices = jax.devices("cpu")
    if len(devices) < topology.chips:
        raise ValueError(
            f"{topology}: expected at least {topology.chips} CPU devices, got {len(devices)}: "
            "set jax_num_cpu_devices"
        )
    return devices[: topology.chips]


def _hopper(name: str, memory: int, bandwidth: int) -> str:
    """What XLA asks of a GPU of compute capability 9.0 that is not there."""
    return f"""
        gpu_device_info {{
          cuda_compute_capability {{ major: 9 }}
          core_count: 132
          fpus_per_core: 128
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          shared_memory_per_block: 49152
          shared_memory_per_block_optin: 232448
          shared_memory_per_core: 233472
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          clock_rate_ghz: 1.98
          l2_cache_size: 52428800
          memory_bandwidth: {bandwidth}
          device_memory_size: {memory}
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 }}
        device_description_str: "{name}"
    """


_H100 = _hopper("NVIDIA H100 80GB HBM3", 84_942_979_072, 3_352_320_000_000)
_H200 = _hopper("NVIDIA H200", 150_754_820_096, 4_800_000_000_000)

CHIPS = {
    "v4": Chip(_tpu, 275e12, 32 * GIB, 1200e9, 100e9, 6.25e9),
    "v5e": Chip(_tpu, 197e12, 16 * GIB, 819e9, 100e9, 3.1e9),
    "v5p": Chip(_tpu, 459e12, 95 * GIB, 2765e9, 200e9, 6.25e9),
    "v6e": Chip(_tpu, 918e12, 32 * GIB, 1640e9, 200e9, 12.5e9),
    "h100": Chip(_gpu, 989e12, 80e9, 3350e9, 450e9, 50e9, _H100),
    "h200": Chip(_gpu, 989e12, 141e9, 4800e9, 450e9, 50e9, _H200),
    # No maker's figures: one core of a server, to hold predictions against measurements.
    "cpu": Chip(_cpu, 50e9, 8 * GIB, 10e9, 5e9, 1e9),
}
