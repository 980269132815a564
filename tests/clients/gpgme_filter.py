"""A mail filter as gateways built on GPGME are: it looks for a key here and at the keyserver, and encrypts.

`gpgme_filter.py HOME ADDRESS <PLAIN >ENCRYPTED`; for Debian's own Python, whose `python3-gpg` it needs. Exit codes are
those of sysexits.h: 67 where nobody has a key, 75 where GPGME failed.
"""

import sys

import gpg

NO_USER, TRY_AGAIN = 67, 75


def main() -> int:
    """Encrypt to the first key that says the address."""
    home, address = sys.argv[1:]
    mode = gpg.constants.keylist.mode.LOCAL | gpg.constants.keylist.mode.EXTERN
    try:
        with gpg.Context(armor=True, home_dir=home) as context:
            keys = [k for k in context.keylist(f"<{address}>", mode=mode) if any(u.email == address for u in k.uids)]
            if not keys:
                print(f"no key for {address}", file=sys.stderr)
                return NO_USER
            encrypted, _, _ = context.encrypt(sys.stdin.buffer.read(), keys[:1], sign=False, always_trust=True)
    except gpg.errors.GpgError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return TRY_AGAIN
    sys.stdout.buffer.write(encrypted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
