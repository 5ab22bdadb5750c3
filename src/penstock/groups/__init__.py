"""Consumer groups and committed offsets: the classic group protocol as Kafka 4.4 serves it.

Layer: above `protocol` and `metadata`, below `handlers`. `state.py` and `classic.py` are pure step
functions; `coordinator.py` performs their effects; `ports.py` is everything they need from outside.
"""
