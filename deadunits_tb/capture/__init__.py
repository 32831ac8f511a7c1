"""The write side: from what one training step shows to records in an event file."""
