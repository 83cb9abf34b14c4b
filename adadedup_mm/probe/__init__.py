"""What a detector could learn from a selection, known in seconds: its last layers in closed form.

The maps of a frozen network are brought to the grids of a dense detector; ridge regression gives
the classes and boxes of its cells. No steps, seeds or learning rates are involved: what differs
between two selections is what they show.
"""

from .backbones import Backbone, OfflineBackbone, OpenCLIPBackbone, TimmBackbone

__all__ = ['Backbone', 'OfflineBackbone', 'OpenCLIPBackbone', 'TimmBackbone']
