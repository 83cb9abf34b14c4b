"""Detectors that mmdet3d lacks."""
