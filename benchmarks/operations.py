"""Which operations a step of a network spends its time in, as TensorFlow's profiler sees it.

    python benchmarks/operations.py NETWORK [--precision float32|bfloat16] [--step train|infer]

Sizes and batches are those of networks.py. One thread computes, so that times add up; printed are
milliseconds and calls of each kind of operation, and the step's whole time first.
"""

import argparse
import collections
import os
import re
import tempfile
from pathlib import Path

import networks

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def operations(folder: Path) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """Milliseconds and calls of each kind of operation in the trace of a folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    [trace] = folder.rglob("*.xplane.pb")
    space.ParseFromString(trace.read_bytes())
    milliseconds: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if node := re.fullmatch(r"[^: ]+:(_?[A-Z]\w*)", name):
                    milliseconds[node[1]] += event.duration_ps / 1e9
                    calls[node[1]] += 1
    return milliseconds, calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--precision", choices=networks.PRECISIONS, default="float32")
    parser.add_argument("--step", choices=networks.STEPS, default="train")
    parser.add_argument("--rows", type=int, default=10)
    arguments = parser.parse_args()

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    name = arguments.network
    [shape] = networks.sizes([name], quick=False).values()
    batch = networks.BATCHES.get(name, 1)
    _, steps = networks.keras_steps(name, list(shape), batch, arguments.precision, True)
    for _ in range(2):  # the first call traces
        steps[arguments.step]()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        steps[arguments.step]()
        tf.profiler.experimental.stop()
        milliseconds, calls = operations(Path(folder))
    print(f"{sum(milliseconds.values()):10.1f} ms, {sum(calls.values())} operations")
    for kind, value in milliseconds.most_common(arguments.rows):
        print(f"{value:10.1f} ms {calls[kind]:5d} {kind.removeprefix('_MklNative')}")


if __name__ == "__main__":
    main()
