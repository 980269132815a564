"""A caching keyserver frontend: HKP and LDAP clients in front, keyservers and directories behind."""

__version__ = "1.0.0"
