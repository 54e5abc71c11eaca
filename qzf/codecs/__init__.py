"""Codecs: stream <-> bytes. The set is normative (spec, section 5), so the registry is a static table."""
