"""Configs and the ``adadedup`` dict: loading, checking, writing."""
