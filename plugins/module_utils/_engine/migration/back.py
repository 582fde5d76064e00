# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the way back of a migration (``rollback: prepared``) is: a migration like any other, with the ends exchanged and nothing to copy."""

from __future__ import annotations

import dataclasses

from ..spec import Endpoint, GlobalsOptions, LimitsOptions, MigrationSpec, check_name, key_of

SOURCE_TYPE = {"self_managed": "on_premises"}
"""What a type of target is called as a source, where that is another word."""

TARGET_TYPE = {
    **dict.fromkeys(("on_premises", "azure_vm", "aws_ec2", "gcp_compute"), "self_managed"),
    "azure_single_server": "other",
}


def back_name(name: str) -> str:
    """What the way back of the migration ``name`` is called."""
    return check_name(f"{name}-back")


def back_key(name: str, source: Endpoint) -> str:
    """Its key: its target is the source."""
    return key_of(back_name(name), source)


def key_back(key: str, source: Endpoint, target: Endpoint) -> str:
    """The key of the way back of the migration with this ``key`` from ``source`` to ``target``."""
    return key_of(f"{key.removesuffix(key_of('', target))}-back", source)


def back_spec(spec: MigrationSpec) -> MigrationSpec:
    """The migration that leads from the target of ``spec`` to its source."""
    cutover = dataclasses.replace(spec.cutover, release=spec.cutover.rollback_release, rollback_release=())
    kinds = SOURCE_TYPE.get(spec.target.type, spec.target.type), TARGET_TYPE.get(spec.source.type, spec.source.type)
    back = dataclasses.replace(
        spec,
        name=back_name(spec.name),
        source=dataclasses.replace(spec.target, side="source", type=kinds[0]),
        target=dataclasses.replace(spec.source, side="target", type=kinds[1]),
        option="migrate",
        rollback="none",
        back_of=spec.key,
        cutover=cutover,
        copy=dataclasses.replace(spec.copy, target_schema="create"),  # nothing is copied back
        globals=GlobalsOptions(enabled=False),
        limits=LimitsOptions(),  # a way back may be kept for as long as somebody wants one
    )
    ends = {side: dataclasses.replace(getattr(back, side), tag=back.key) for side in ("source", "target")}
    return dataclasses.replace(back, **ends)
