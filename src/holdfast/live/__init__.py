"""What the process holds in memory about live runs: their logs and who reads them."""
