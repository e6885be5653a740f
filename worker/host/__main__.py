"""The one process of a device that holds torch and the models.

python -P -m worker.host --socket PATH --device cpu|cuda
"""

from worker.host.models import load
from worker.host.program import run

run(load)
