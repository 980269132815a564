"""The LDAP face."""
