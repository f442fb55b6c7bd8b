"""What clusters call the chips of a topology, and how many hosts it has."""

import dataclasses

from po_jax.planning.chips import Topology


@dataclasses.dataclass(frozen=True)
class Machine:
    """The hosts of a kind of chip.

    Attributes:
      chips: of one host.
      gke: the value of GKE's node label for this accelerator.
      machine_type: of Google Cloud.
      tpu_type: prefix of a Cloud TPU's accelerator type; empty for GPUs.
      cores: that Cloud TPU counts for each chip in an accelerator type.
      runtime: software version of a Cloud TPU VM.
    """

    chips: int
    gke: str
    machine_type: str
    tpu_type: str = ""
    cores: int = 1
    runtime: str = ""


_MACHINES = {
    "v4": Machine(4, "tpu-v4-podslice", "ct4p-hightpu-4t", "v4", 2, "tpu-ubuntu2204-base"),
    "v5e": Machine(
        4, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t", "v5litepod", 1, "v2-alpha-tpuv5-lite"
    ),
    "v5p": Machine(4, "tpu-v5p-slice", "ct5p-hightpu-4t", "v5p", 2, "v2-alpha-tpuv5"),
    "v6e": Machine(4, "tpu-v6e-slice", "ct6e-standard-4t", "v6e", 1, "v2-alpha-tpuv6e"),
    "h100": Machine(8, "nvidia-h100-80gb", "a3-highgpu-8g"),
    "h200": Machine(8, "nvidia-h200-141gb", "a3-ultragpu-8g"),
}


def machine_of(topology: Topology) -> Machine:
    """The hosts that a topology is made of.

    Raises:
      ValueError: if no cluster has it.
    """
    if topology.name not in _MACHINES:
        raise ValueError(
            f"expected a topology of one of {', '.join(_MACHINES)}, got {str(topology)!r}"
        )
    return _MACHINES[topology.name]


def hosts_of_slice(topology: Topology) -> tuple[int, int]:
    """Hosts of one slice, and chips of each.

    Raises:
      ValueError: if the hosts of this kind of chip do not make up the shape.
    """
    machine = machine_of(topology)
    if not machine.tpu_type:
        hosts, chips = (1, *topology.shape)[-2:]
        return hosts, chips
    chips = topology.chips // topology.slices
    if chips < machine.chips:
        return 1, chips
    if chips % machine.chips:
        raise ValueError(
            f"{topology}: expected a multiple of {machine.chips} chips, as a host has, got {chips}"
        )
    return chips // machine.chips, machine.chips
