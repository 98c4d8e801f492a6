"""The shape of a trial's worker group."""

from __future__ import annotations

from dataclasses import dataclass

from ray.train import ScalingConfig


@dataclass(frozen=True)
class Workers:
    """The shape of a trial's worker group.

    Attributes:
        count: workers.
        cpus, gpus: of each.
        accelerator_type: Ray's name of their GPUs; None: any.
        network_interface: over which those on different nodes speak; None: see
            `study.orchestration.cluster.network`.
    """

    count: int
    cpus: float
    gpus: float
    accelerator_type: str | None = None
    network_interface: str | None = None

    def scaling(self) -> ScalingConfig:
        resources = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return ScalingConfig(
            num_workers=self.count,
            use_gpu=self.gpus > 0,
            resources_per_worker=resources,
            # On as few nodes as possible, on several where one has no room.
            placement_strategy="PACK",
            accelerator_type=self.accelerator_type,
        )
