"""How ``tools/make_vectors.py`` makes golden containers, valid and broken ones, from their parts."""
