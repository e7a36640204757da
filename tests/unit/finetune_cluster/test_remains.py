from pathlib import Path

from finetune_cluster.node.remains import mounts_under

MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:30 / /run rw - tmpfs tmpfs rw
41 40 0:31 / /run/finetune-cluster/containerd/task/a/rootfs rw - overlay overlay rw
42 41 0:32 / /run/finetune-cluster/containerd/task/a/rootfs/tmp rw - tmpfs tmpfs rw
43 40 0:33 / /run/finetune-cluster-other rw - tmpfs tmpfs rw
44 22 0:34 / /home/a\\040b/node/kubelet/pods/x rw - tmpfs tmpfs rw
"""


def test_mounts_below_the_folders_are_listed_with_the_innermost_first() -> None:
    assert mounts_under(MOUNTINFO, [Path("/run/finetune-cluster")]) == [
        "/run/finetune-cluster/containerd/task/a/rootfs/tmp",
        "/run/finetune-cluster/containerd/task/a/rootfs",
    ]


def test_spaces_in_a_path_are_read_as_the_kernel_writes_them() -> None:
    assert mounts_under(MOUNTINFO, [Path("/home/a b")]) == ["/home/a b/node/kubelet/pods/x"]
