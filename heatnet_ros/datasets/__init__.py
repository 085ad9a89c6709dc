"""Data sets: readers, writers and the generator of rendered training data."""
