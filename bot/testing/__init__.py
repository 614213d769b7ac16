"""The test kit for plugin authors: makers, fakes and contracts."""
