"""Batches of many items: from an app's lists or from files, submitted as bulk messages."""
