"""OpenPGP hygiene: hostile octets in, provable certificates out. Pure: time and limits are arguments."""

from keyserver.openpgp.armor import armor, dearmor
from keyserver.openpgp.clean import clean, clean_brief
from keyserver.openpgp.cut import cut
from keyserver.openpgp.limits import Limits
from keyserver.openpgp.merge import merge, merge_revocations, revocations
from keyserver.openpgp.proof import index, prove
from keyserver.openpgp.userid import address_of

__all__ = [
    "Limits",
    "address_of",
    "armor",
    "clean",
    "clean_brief",
    "cut",
    "dearmor",
    "index",
    "merge",
    "merge_revocations",
    "prove",
    "revocations",
]
