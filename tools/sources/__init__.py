"""Makers of the files in ``fixtures/sources``: small valid checkpoints cut out of real models."""
