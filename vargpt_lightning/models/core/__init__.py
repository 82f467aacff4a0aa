"""What all parts of the model share: configuration, scales, masks, losses, packed rows.

Networks belong in the rooms beside this one.
"""
