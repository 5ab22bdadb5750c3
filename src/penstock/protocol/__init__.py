"""The Kafka protocol in Python: message classes, tables, and the codec that the engine provides."""
