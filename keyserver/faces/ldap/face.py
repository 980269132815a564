"""The LDAP face: how it opens."""

from __future__ import annotations

from dataclasses import replace

from keyserver.config.passwords import read_password
from keyserver.config.sections.faces import LdapSection
from keyserver.faces.face import Face, Opening
from keyserver.faces.ldap.bind import Account
from keyserver.faces.ldap.server import LdapServer
from keyserver.faces.ldap.session import LdapLimits
from keyserver.faces.ldap.tree import Tree


async def _open(opening: Opening) -> LdapServer:
    config, context = opening.config, opening.context
    limits = LdapLimits(connections_per_client=config.limits.connections_per_client, trust=context.trust)
    if config.workers:
        limits = replace(limits, connections=limits.connections * config.workers)
    tls = opening.tls(config.ldap.tls_certificate, config.ldap.tls_key_file)
    return LdapServer(
        context,
        Tree(config.ldap.base, start_tls=tls is not None, text_search=lambda: context.rules().text_search),
        limits,
        tls=tls,
        account=_account(config.ldap),
        tell=opening.tell,
    )


def _account(ldap: LdapSection) -> Account | None:
    """Who may bind, if anybody."""
    if ldap.bind_password_file is None:
        return None
    try:
        return Account(ldap.bind_dn, read_password("ldap.bind_password_file", ldap.bind_password_file))
    except OSError as problem:
        raise ValueError(f"ldap.bind_password_file: {problem}") from None


LDAP = Face("ldap", "ldap", _open)
