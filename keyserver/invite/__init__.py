"""Invitations: owners of cached certificates are asked, by a mail that only they can read, to opt in."""
