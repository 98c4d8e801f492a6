"""What leaves this machine: files that start a Ray cluster, studies sent to one.

Import what is named here, and `submit`. `render_cluster_file` fills the files of ``cluster/`` from
a study file; that part never imports Ray.
"""

from study.launch.cluster_file.render import Rendered, render_cluster_file
from study.launch.cluster_file.shape import ClusterShape, cluster_shape
from study.launch.cluster_file.targets import TARGETS, cluster_folder

__all__ = [
    "TARGETS",
    "ClusterShape",
    "Rendered",
    "cluster_folder",
    "cluster_shape",
    "render_cluster_file",
]
