"""Runs other people's test suites, and one list of ours in three languages, against a broker.

Each suite module (``kafka_own``, ``librdkafka``, ``kgo``, ``programs``) builds what it needs into
the cache, starts a broker of its own, and returns one ``Outcome`` a test. What is judged, printed
and counted is the business of ``report``; ``__main__`` is the driver that runs suites side by side.
"""
