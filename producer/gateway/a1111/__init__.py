"""The API of AUTOMATIC1111's web UI, translated to the same jobs, keys and limits."""
