"""AgentDojo without a language model: what Checkrein stops, what it asks, what it costs.

Run it with ``python -m benchmarks.agentdojo`` from the root of a checkout. The
README beside this file says what is measured and what the figures mean.
"""
