"""A folder of TensorRT's graphs for another machine: graphs, profiles, manifest, and no plans."""

from __future__ import annotations

import shutil

from builders.manifest import BuildFacts, write_manifest
from builders.plans import SPARSE_STEP, all_profiles
from builders.prepared_plans import PlanJob, write_jobs
from builders.repository import Layout
from calibration.scales import GRAPH_FILES
from kobart_runtime.model_config import ENGINE_FILES


def write_prepared(layout: Layout, facts: BuildFacts) -> None:
    """Turn a build's folder into one that `builders.build_plans` takes.

    Args:
        layout: The front model's folder holds the graphs, which have passed their gate; they move
            to the build's root.
        facts: For the manifest.
    """
    names = [*GRAPH_FILES, *(facts.conversion.portable if facts.conversion else ())]
    paths = [layout.root / name for name in names]
    for path in paths:
        shutil.move(layout.front / path.name, path)
    shutil.rmtree(layout.front.parent)
    jobs = [
        PlanJob(
            graph=graph,
            plan=plan,
            precision=facts.config.precision,
            profiles=profiles,
            sparse_weights=SPARSE_STEP in (facts.config.prune or ()),
        )
        for graph, plan, profiles in zip(
            GRAPH_FILES,
            ENGINE_FILES["tensorrt"],
            all_profiles(facts.shape, facts.limits),
            strict=True,
        )
    ]
    write_jobs(layout.root, jobs)
    write_manifest(layout.root, facts, paths)
