"""What owners of certificates see: the pages behind the links of their invitations, on a listener of their own."""
