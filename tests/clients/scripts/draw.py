"""Draw with OpenAI's client: draw.py PROMPT STEPS TIMEOUT RETRIES"""

import sys

from openai import APIError, OpenAI

prompt, steps, timeout, retries = sys.argv[1], *map(int, sys.argv[2:])
client = OpenAI(timeout=timeout, max_retries=retries)
try:
    client.images.generate(model="sketcher", prompt=prompt, extra_body={"steps": steps})
except APIError as e:
    print(type(e).__name__, e.code or "")
