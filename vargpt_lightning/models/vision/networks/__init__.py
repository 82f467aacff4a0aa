"""The networks of vision towers in plain torch. One file a family; its parameters are named as published."""
