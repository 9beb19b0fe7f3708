"""A gateway in front of an MCP server: permission, origin, confirmation and log, for any client.

A client that speaks MCP, in whatever language, starts ``checkrein gateway --config gateway.toml
-- <server command>`` instead of the server. What the configuration does not declare
(:mod:`checkrein.gateway.config`) is not there: no other tool, no prompt, and no request of
the server to the client.
"""
