"""The probe: how well a detector will do that is trained on a selection, predicted in seconds."""
