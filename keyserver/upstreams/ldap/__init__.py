"""LDAP directories as upstreams."""
