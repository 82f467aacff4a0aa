"""The networks of vision towers, one file a family, in plain torch."""
