"""The `webuiapi` client draws once: webuiapi_draw.py PROMPT STEPS

It prints how many pictures there are, or the status and code that it was refused with.
"""

import json
import os
import sys

from webuiapi import WebUIApi

URL = f"{os.environ['CROSSMODAL_URL']}/sdapi/v1"
api = WebUIApi(baseurl=URL, username="me", password=os.environ["CROSSMODAL_API_KEY"])
chosen = {"sd_model_checkpoint": "sketcher"}
try:
    drawn = api.txt2img(
        prompt=sys.argv[1], steps=int(sys.argv[2]), width=64, height=64, override_settings=chosen
    )
    print(len(drawn.images))
except RuntimeError as e:
    print(e.args[0], json.loads(e.args[1])["error"])
