"""A Ray cluster of three nodes of one core on this machine; prints its address and the process of each node as JSON."""

import json
import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.head_node, *(cluster.add_node(num_cpus=1) for _ in range(2))]
    cluster.wait_for_nodes()
    pids = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "pids": pids}), flush=True)  # noqa: T201
    sys.stdin.read()  # until the test ends
    cluster.shutdown()
