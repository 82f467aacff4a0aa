"""Weight files: found, read without loading them, and written in shards. Knows files and tensors, no model."""
