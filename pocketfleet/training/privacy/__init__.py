"""What keeps updates unreadable and models forgetful of any one device: secure aggregation, differential privacy."""
