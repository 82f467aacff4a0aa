"""Part of vargpt_lightning: import it as `vargpt_lightning.callbacks`."""

if __name__ == "callbacks":
    raise ImportError("import vargpt_lightning.callbacks instead of callbacks")
