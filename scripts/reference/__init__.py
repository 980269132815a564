"""Pages of the documentation that are made from declarations: the command line, the API, the metrics, shipped files."""
