"""Plans: does an experiment fit, how long will it take, what would make it fit; answered without the hardware.

Measured throughput belongs in `callbacks`, how a model is sharded in `distributed`.
"""
