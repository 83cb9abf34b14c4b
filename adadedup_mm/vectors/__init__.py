"""Numerics on many unit vectors: reading rows, nearest neighbours, a map in two dimensions."""
