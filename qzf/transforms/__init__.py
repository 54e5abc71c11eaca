"""Reversible rearrangements: bytes of a chunk <-> homogeneous streams."""
