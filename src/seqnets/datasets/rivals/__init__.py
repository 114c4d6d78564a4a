"""What a dataset is compared with: simple rivals that need no training, or hardly any."""
