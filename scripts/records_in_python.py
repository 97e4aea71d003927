"""Reads the records of runs with other people's readers: lineage with OpenLineage's own classes, metrics with Prometheus's.

usage: records_in_python.py LINEAGE METRICS...

LINEAGE is a lineage.ndjson. Every event must be one that OpenLineage's client accepts, and the stages that ended well must
be one graph, each linked to the next by the name of a data set. METRICS are metrics.prom files that one collector would read
together: no series may come twice. Prints what was found; exit 1 if something is wrong.
"""

import collections
import json
import pathlib
import sys

import networkx
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from prometheus_client.parser import text_string_to_metric_families


def event(line: str) -> RunEvent:
    raw = json.loads(line)
    return RunEvent(
        eventTime=raw["eventTime"],
        producer=raw["producer"],
        eventType=RunState[raw["eventType"]],
        run=Run(runId=raw["run"]["runId"]),
        job=Job(namespace=raw["job"]["namespace"], name=raw["job"]["name"]),
        inputs=[InputDataset(namespace=it["namespace"], name=it["name"]) for it in raw["inputs"]],
        outputs=[OutputDataset(namespace=it["namespace"], name=it["name"]) for it in raw["outputs"]],
    )


def main() -> None:
    lineage, *metrics = map(pathlib.Path, sys.argv[1:])
    events = [event(line) for line in lineage.read_text().splitlines()]
    graph = networkx.DiGraph()
    for it in events:
        if it.eventType is RunState.COMPLETE:
            graph.add_edges_from(((data.namespace, data.name), it.job.name) for data in it.inputs)
            graph.add_edges_from((it.job.name, (data.namespace, data.name)) for data in it.outputs)
    jobs = {it.job.name for it in events}
    if not networkx.is_weakly_connected(graph) or not networkx.is_directed_acyclic_graph(graph):
        sys.exit(f"the jobs {sorted(jobs)} are not one graph: {list(graph.edges)}")

    seen = collections.Counter()
    for path in metrics:
        for family in text_string_to_metric_families(path.read_text()):
            if not family.documentation or family.type != "gauge":
                sys.exit(f"{path}: {family.name} has no help or type")
            seen.update((it.name, tuple(sorted(it.labels.items()))) for it in family.samples)
    twice = [series for series, count in seen.items() if count > 1]
    if twice:
        sys.exit(f"these series come twice: {twice}")
    print(f"{len(events)} events, {len(jobs)} jobs in one graph, {len(seen)} series")


if __name__ == "__main__":
    main()
