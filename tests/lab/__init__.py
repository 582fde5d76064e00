# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Three hosts on one machine: source, runtime and target, as ansible-playbook meets real ones (``scripts/lab``)."""
