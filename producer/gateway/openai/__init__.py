"""What clients of OpenAI's API speak, translated to the same jobs, keys, limits and errors."""

from producer.gateway.openai import chat, errors, images, models

__all__ = ["chat", "errors", "images", "models"]
