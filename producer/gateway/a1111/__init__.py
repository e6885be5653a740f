"""What clients of AUTOMATIC1111's web UI speak, translated to the same jobs, keys and limits."""
