"""Hosts: how a client's reader becomes an HTTP response, and who may have one."""
