"""Faces: the protocols that clients speak to us. They know no upstreams and no tables."""
