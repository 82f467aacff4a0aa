"""Does an experiment fit, how long will it take, what would make it fit: answered without the hardware."""
