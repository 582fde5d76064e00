# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The two servers; both have the same suboptions."""

    SOURCE = r"""
options:
  source:
    description:
      - The server that the databases come from, as the host that runs the module reaches it.
    type: dict
    required: true
    suboptions:
      type:
        description:
          - What kind of source it is. It decides which checks apply and how its parameters are set.
        type: str
        choices:
          - on_premises
          - azure_vm
          - azure_single_server
          - azure_flexible
          - aws_rds
          - aws_aurora
          - aws_ec2
          - gcp_cloudsql
          - gcp_alloydb
          - gcp_compute
          - other
        default: on_premises
      host:
        description:
          - Name or address. Required, here or in the service.
        type: str
      port:
        description:
          - TCP port; C(5432) where neither this nor the service says it.
        type: int
      user:
        description:
          - Role to log in as. No superuser is needed for a migration. Required, here or in the service.
        type: str
      password:
        description:
          - Its password. Leave it out where the server asks for none, a client certificate is used, or a file has it.
        type: str
      passfile:
        description:
          - Password file of libpq's on the host that runs the module, read by the user that the module runs as, with lines
            C(host:port:database:user:password). It is read when no password is given.
          - It must not be open to others (mode 0600), and one of its lines must fit, with O(source.dbname) as the database.
          - The file C(~/.pgpass) is read only when it is named here.
        type: path
      service:
        description:
          - Section of a connection service file of libpq's on the host that runs the module. What is given beside it counts more than the
            service.
          - It may say host, port, user, password, passfile, dbname, connect_timeout, sslmode, sslrootcert, sslcert and sslkey.
            A file that holds the password must not be open to others.
        type: str
      service_file:
        description:
          - The file with O(source.service). By default the section is looked for in C(~/.pg_service.conf) of the user that the module runs
            as, then in C(/etc/postgresql-common/pg_service.conf) and C(/etc/sysconfig/pgsql/pg_service.conf).
        type: path
      dbname:
        description:
          - Database to connect to for what concerns the whole server; C(postgres) where neither this nor the service says it.
        type: str
      sslmode:
        description:
          - TLS mode as libpq defines it. Use V(verify-full) wherever the server has a certificate that can be checked.
          - V(prefer) where neither this nor the service says it.
        type: str
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      sslrootcert:
        description:
          - File on the host that runs the module, with the certificates of the authorities to trust.
        type: path
      sslcert:
        description:
          - File on the host that runs the module, with the client certificate.
        type: path
      sslkey:
        description:
          - File on the host that runs the module, with the key of O(source.sslcert).
        type: path
      connect_timeout:
        description:
          - Seconds to wait for a connection; C(10) where neither this nor the service says it.
        type: int
      storage_gb:
        description:
          - Size of the server's disk in GB, which a server cannot be asked for; V(0) is not given.
          - The validation compares the target's with 1.25 times the data.
        type: int
        default: 0
      vcores:
        description:
          - Number of the server's CPUs, which it cannot be asked for either; V(0) is not given.
          - The validation compares the source's with the target's and the runtime host's.
          - The target's are shared out as parallel workers of the index builds; by default the server's own setting holds.
        type: int
        default: 0
      memory_gb:
        description:
          - Size of the server's memory in GB, in the same way; the target's also decides the memory of the index builds.
        type: int
        default: 0
      region:
        description:
          - Where the server is, as its provider calls it, such as V(westeurope).
          - The validation compares the regions of servers in Azure.
        type: str
      subscription:
        description:
          - Whose the server is; shown in the report and nowhere used.
        type: str
      resource_group:
        description:
          - The provider's group that it belongs to; shown in the report and nowhere used.
        type: str
"""

    TARGET = r"""
options:
  target:
    description:
      - The server that the databases go to, as the host that runs the module reaches it.
    type: dict
    required: true
    suboptions:
      type:
        description:
          - What kind of target it is. It decides what is left out because such a server refuses it.
        type: str
        choices: [azure_flexible, self_managed, aws_rds, aws_aurora, gcp_cloudsql, gcp_alloydb, other]
        default: azure_flexible
      host:
        description:
          - Name or address. Required, here or in the service.
        type: str
      port:
        description:
          - TCP port; C(5432) where neither this nor the service says it.
        type: int
      user:
        description:
          - Role to log in as. No superuser is needed for a migration. Required, here or in the service.
        type: str
      password:
        description:
          - Its password. Leave it out where the server asks for none, a client certificate is used, or a file has it.
        type: str
      passfile:
        description:
          - Password file of libpq's on the host that runs the module, read by the user that the module runs as, with lines
            C(host:port:database:user:password). It is read when no password is given.
          - It must not be open to others (mode 0600), and one of its lines must fit, with O(target.dbname) as the database.
          - The file C(~/.pgpass) is read only when it is named here.
        type: path
      service:
        description:
          - Section of a connection service file of libpq's on the host that runs the module. What is given beside it counts more than the
            service.
          - It may say host, port, user, password, passfile, dbname, connect_timeout, sslmode, sslrootcert, sslcert and sslkey.
            A file that holds the password must not be open to others.
        type: str
      service_file:
        description:
          - The file with O(target.service). By default the section is looked for in C(~/.pg_service.conf) of the user that the module runs
            as, then in C(/etc/postgresql-common/pg_service.conf) and C(/etc/sysconfig/pgsql/pg_service.conf).
        type: path
      dbname:
        description:
          - Database to connect to for what concerns the whole server; C(postgres) where neither this nor the service says it.
        type: str
      sslmode:
        description:
          - TLS mode as libpq defines it. Use V(verify-full) wherever the server has a certificate that can be checked.
          - V(prefer) where neither this nor the service says it.
        type: str
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      sslrootcert:
        description:
          - File on the host that runs the module, with the certificates of the authorities to trust.
        type: path
      sslcert:
        description:
          - File on the host that runs the module, with the client certificate.
        type: path
      sslkey:
        description:
          - File on the host that runs the module, with the key of O(target.sslcert).
        type: path
      connect_timeout:
        description:
          - Seconds to wait for a connection; C(10) where neither this nor the service says it.
        type: int
      storage_gb:
        description:
          - Size of the server's disk in GB, which a server cannot be asked for; V(0) is not given.
          - The validation compares the target's with 1.25 times the data.
        type: int
        default: 0
      vcores:
        description:
          - Number of the server's CPUs, which it cannot be asked for either; V(0) is not given.
          - The validation compares the source's with the target's and the runtime host's.
          - The target's are shared out as parallel workers of the index builds; by default the server's own setting holds.
        type: int
        default: 0
      memory_gb:
        description:
          - Size of the server's memory in GB, in the same way; the target's also decides the memory of the index builds.
        type: int
        default: 0
      region:
        description:
          - Where the server is, as its provider calls it, such as V(westeurope).
          - The validation compares the regions of servers in Azure.
        type: str
      subscription:
        description:
          - Whose the server is; shown in the report and nowhere used.
        type: str
      resource_group:
        description:
          - The provider's group that it belongs to; shown in the report and nowhere used.
        type: str
"""
