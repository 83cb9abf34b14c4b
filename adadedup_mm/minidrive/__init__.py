"""MiniDrive, the built-in world: a small deterministic simulator of drives with known redundancy.

Follow the data: ``world`` (pure state: who is where, when) -> ``cameras`` (what is seen, and where
in the picture) -> ``render`` (the picture, from ``backdrop`` and ``shapes``) -> the writers
(``coco``, ``nuscenes_tables``, ``nuscenes_infos``, ``waymo``, ``kitti``, ``truth``), all driven by
``build``.
"""
