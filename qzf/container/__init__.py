"""The container: writing it in one pass, reading it from the end, checking and recovering it."""
