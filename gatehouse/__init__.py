"""Gatehouse: a bare Linux workstation becomes a private, hardened LLM gateway, and stays one."""
