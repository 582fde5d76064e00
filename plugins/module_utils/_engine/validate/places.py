# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Where the three hosts are and how large: what no server can be asked, compared as far as the inventory says it."""

from __future__ import annotations

import ipaddress
import os
import typing as t

from ..postgres.identifiers import quote_ident
from ..snapshot.tablespaces import unusable_tablespaces
from ..spec import Endpoint
from .context import Context
from .registry import OPERATOR, PLAYBOOK, SERVER, SUCCEEDED, WARNING, Issue, check, fail, ok, warn

AZURE = frozenset({"azure_single_server", "azure_flexible", "azure_vm"})
"""Types of servers that are in a region of Azure."""

GROUPS = ("india", "china", "uae")
"""Names of regions hold one of these where a migration may lead to another region of its group (tutorial, "Limitations")."""

SIZES = (("vcores", "vCPUs"), ("memory_gb", "GB of memory"), ("storage_gb", "GB of storage"))


@check(
    "PGM2017", "size of the target", who=SERVER, side="target", needs=(), worst="Warning", remedy="a target of the source's size or more"
)
def target_size(ctx: Context) -> t.Iterator[Issue]:
    """The target is no smaller than the source in what the inventory says of both: vCPUs, memory, storage (R11)."""
    source, target = ctx.spec.source, ctx.spec.target
    known = [(words, getattr(source, key), getattr(target, key)) for key, words in SIZES if getattr(source, key) and getattr(target, key)]
    data = {key: {"source": getattr(source, key), "target": getattr(target, key)} for key, dummy in SIZES}
    text = "; ".join(f"{words}: {mine} on the source, {theirs} on the target" for words, mine, theirs in known)
    if any(theirs < mine for dummy, mine, theirs in known):
        profile = ctx.profile("target")
        command = profile.resize_command or "give the target's machine more"
        yield warn(f"the target is smaller: {text}", f"If the load does not get smaller too: {command}.", data=data, restart=True)
    else:
        yield ok(text or "source and target: vcores, memory_gb and storage_gb are not given", data=data)


@check(
    "PGM2018",
    "size of the runtime host",
    who=OPERATOR,
    side="runtime",
    needs=(),
    remedy="a runtime host of the source's size, or checks.runtime_warn and checks.runtime_fail",
)
def runtime_against_source(ctx: Context) -> t.Iterator[Issue]:
    """This host has the source's vCPUs and memory, in the shares that ``checks`` asks for, where the inventory says the source's (R7)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    have = {"vcores": float(os.cpu_count() or 1), "memory_gb": memory}
    yield judge_runtime(have, ctx.spec.source, ctx.spec.checks.runtime_warn, ctx.spec.checks.runtime_fail)


def judge_runtime(have: t.Mapping[str, float], source: Endpoint, least: float, far: float) -> Issue:
    """What a host with ``have`` is for ``source``: below the share ``least`` of it a warning, below ``far`` a failure."""
    known = [(words, have[key], getattr(source, key)) for key, words in SIZES if key in have and getattr(source, key)]
    text = "; ".join(f"{words}: {mine:.4g} here, {theirs} on the source" for words, mine, theirs in known)
    lowest = min((mine / theirs for dummy, mine, theirs in known), default=1.0)
    data = {"have": dict(have), "share": lowest}
    fix = f"Use a larger runtime host; the limits are checks.runtime_warn ({least:g}) and checks.runtime_fail ({far:g})."
    if lowest < far:
        return fail(f"this host is far smaller than the source: {text}", fix, data=data)
    if lowest < least:
        return warn(f"this host is smaller than the source: {text}", fix, data=data)
    return ok(text or "source.vcores and source.memory_gb are not given", data=data)


@check("PGM2021", "tablespaces", side="target", remedy="CREATE TABLESPACE, GRANT CREATE ON TABLESPACE, or globals.tablespaces")
def tablespaces(ctx: Context) -> t.Iterator[Issue]:
    """The tablespaces that ``globals.tablespaces`` maps to are on the target, and its user may create in them."""
    mapping = ctx.spec.globals.tablespaces
    problems = unusable_tablespaces(ctx.target, mapping.values())
    if problems:
        user = quote_ident(ctx.user("target"))
        fix = f"As a superuser of the target: CREATE TABLESPACE ... LOCATION ...; GRANT CREATE ON TABLESPACE ... TO {user}; no restart."
        yield fail(f"globals.tablespaces cannot be followed: {'; '.join(problems)}", fix, object=problems[0].split()[0])
    else:
        yield ok(", ".join(f"{here} to {there}" for here, there in mapping.items()) or "none are mapped")


@check("PGM2019", "runtime host is not the target", who=PLAYBOOK, side="target", remedy="another runtime host")
def runtime_is_not_target(ctx: Context) -> t.Iterator[Issue]:
    """The runtime host is a machine of its own: it should not be confused with the target (R52)."""
    client, server = ctx.target.execute("SELECT host(inet_client_addr()), host(inet_server_addr())").fetchall()[0]
    if same_machine(client, server):
        yield fail(
            f"the target sees this runtime host at its own address {server}: the runtime host is the target",
            "Put another machine into the group pg_migration_runtime; the copy would take the target's CPU, memory and disk.",
            object=str(server),
        )
    elif client is None or same_machine(client, server, loopback=True):
        yield ok("the target is reached over this machine itself: a tunnel or proxy, or a trial on one machine")
    else:
        yield ok(f"seen as {client} by {server}")


def same_machine(client: str | None, server: str | None, *, loopback: bool = False) -> bool:
    """Does a server at the address ``server`` see a client on its own machine? Loopback addresses do not tell: a tunnel may end there."""
    if client is None or server is None or client != server:
        return False
    return ipaddress.ip_address(client).is_loopback == loopback


@check(
    "PGM2020", "regions", who=PLAYBOOK, azure="", side="target", needs=(), remedy="a target in the source's region, or checks.region_policy"
)
def regions(ctx: Context) -> t.Iterator[Issue]:
    """A source in Azure and its target are in one region, or in regions of India, China or the UAE (R55), where the inventory says both."""
    policy = ctx.spec.checks.region_policy
    source, target = ctx.spec.source, ctx.spec.target
    severity, text = judge_regions(source, target)
    if policy == "off" or severity == SUCCEEDED:
        yield ok("off, as checks.region_policy says" if policy == "off" else text)
        return
    fix = "Create the target in the source's region and move it afterwards, or set checks.region_policy."
    yield (fail if policy == "fail" else warn)(text, fix, object=target.region)


def judge_regions(source: Endpoint, target: Endpoint) -> tuple[str, str]:
    """Severity and words for the regions of two servers; names are compared as Azure's tools write them in both ways (``West Europe``)."""
    if source.type not in AZURE or target.type not in AZURE:
        return SUCCEEDED, "only for servers in Azure"
    here, there = (endpoint.region.lower().replace(" ", "") for endpoint in (source, target))
    if not here or not there:
        return SUCCEEDED, "source.region and target.region are not given"
    if here == there:
        return SUCCEEDED, f"both in {target.region}"
    if any(group in here and group in there for group in GROUPS):
        return SUCCEEDED, f"{source.region} to {target.region}: regions of one country, between which Azure migrates"
    return (
        WARNING,
        f"source in {source.region}, target in {target.region}: Azure migrates between regions of India, China and the UAE only",
    )
