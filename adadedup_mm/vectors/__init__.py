"""Numerics on large sets of unit vectors: rows read in passing, nearest neighbours, a map in two dimensions."""
