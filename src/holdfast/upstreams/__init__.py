"""The services that write answers, one file each."""
