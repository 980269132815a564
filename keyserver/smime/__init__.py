"""S/MIME hygiene: DER or PKCS#7 in, end-entity certificates with what they prove out. Pure; nothing is ever fetched.

URLs in certificates (CRL, OCSP, AIA) are not followed: whoever makes a certificate could otherwise make us call them.
"""

from keyserver.smime.bundle import intermediates, pack, unpack
from keyserver.smime.chain import Anchors, load_anchors
from keyserver.smime.x509 import Limits, clean, index, merge, merge_revocations, prove, revocations

__all__ = [
    "Anchors",
    "Limits",
    "clean",
    "index",
    "intermediates",
    "load_anchors",
    "merge",
    "merge_revocations",
    "pack",
    "prove",
    "revocations",
    "unpack",
]
