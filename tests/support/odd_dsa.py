"""DSA of sizes that no standard names, as old programs made it: domains found once, signatures made by hand."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

DOMAINS = {  # bits of p -> (p, q, g)
    1248: (
        int(
            "D172FFD03C9EB801A20E73C82F0FDC490A9D4680A390730904E60A138031786C717DE035E18CF21FFF1A99A783FA1294"
            "14DAC81658DA309A52EE91C780E8845CB903684194A3529AEFC06E207598F16E7712AF6309500DA757442B85EFFB0C8E"
            "2BBFE1BE45A41B197D073EE55B4F914273D3B0B8B70F79B2939C9FEF726DD42BD5E94B0A85487684587523C6350B201D"
            "F0981733243A6A7892CA74C3",
            16,
        ),
        0xDF71E84BF75A0B933BED89E5C343A777BE82E30D,
        int(
            "36EDBC1DF032BDD0B6BB097488C45DC08F1DCD8BA514CFC24A0EF84ECC1F1F63366A2BE00F4695F6BB342DF8EFB7A64D"
            "DE77AAA921119733AF46B1A4DA79907D08174D91DB69190FE4CC508BC41F7785C240DE578553D9454730BBD0FA9825D1"
            "6C79CF370ADF3D1F975A8FB6A5CC6ECCC8AE5AFD4B144EA9DCFCBF01838CB6864F9A8C2D92190CDC1FBB416242B056AA"
            "0F595F1308F5F57258B9713C",
            16,
        ),
    ),
    1536: (
        int(
            "8EE9852829D21B75AA1DC95817116C424F8714AE9CD90F4858FC9A6518BEC704C51D61D9CDC76333EF00340CFDE1D74F"
            "165B43070D50DDC54DAD30435C0147D21ADF77B1F12F023BA7922915A90CC6CFEECA3513083059ECFE7ECF7F1B3787C8"
            "9BDC3E2ADAA4C16F0E1617A4A90F7FEFB7EECE9BEACF587C4275169FC3DD2C15094A8588B7097015AB113237F79DDDC9"
            "C3C362C12B9C9E245A7135D964C629E58CD045F9DE85022A0B95D8BF047BCE929806D1453D9A3431060068E0112A906B",
            16,
        ),
        0x9F15D616D9A05A710B2324610D20CEC74CCF67B8B2A2EFEF,
        int(
            "E114306C8C846D96ACD046EFEEE51EB0FEEA67270C9E3E03280D5CFE53BFBC14727BD62AFB082B0BE6D427B9E58F4FF8"
            "AA4148A3FBFF38AEBA705564A2325B6DBBD5147C82B3523737C7C25D94AF17A876C8141F8436AE10D6C8B8D11CE45E19"
            "B93B6A7FEDBECD4988C6FF17DC4D711540528E91F2E9D47305AF42D01CE215C9EE8B1B038BAFAA4B4DAC505EDD1E15E5"
            "546ACE759CEC68B25871E9CC7AA6B8542DFC6182C1216B1E843DE3E71628A6851E6F47235308EF27D51A6CF34B46F31",
            16,
        ),
    ),
}


@dataclass(frozen=True)
class OddDsa:
    """A private key; signs as `cryptography`'s do."""

    p: int
    q: int
    g: int
    x: int

    @classmethod
    def of(cls, bits: int) -> OddDsa:
        p, q, g = DOMAINS[bits]
        return cls(p, q, g, secrets.randbelow(q - 1) + 1)

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """p, q, g, y, as an OpenPGP key has them."""
        return self.p, self.q, self.g, pow(self.g, self.x, self.p)

    def sign(self, digest: bytes, _: Any) -> bytes:
        """DER of r and s (FIPS 186-4 section 4.6)."""
        z = int.from_bytes(digest, "big") >> max(0, 8 * len(digest) - self.q.bit_length())
        while True:
            k = secrets.randbelow(self.q - 1) + 1
            r = pow(self.g, k, self.p) % self.q
            s = pow(k, -1, self.q) * (z + self.x * r) % self.q
            if r and s:
                return encode_dss_signature(r, s)
